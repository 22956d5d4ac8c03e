"""One attempt at one restoration, in one function: read it from top to bottom."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import events
from shared.blobs.store import Draft
from shared.imaging import codec, preview, tiles
from shared.jobs.job import Success, blob_key, preview_part, result_part
from trainer.execution import ensemble
from worker.committer import Committer
from worker.ending import end
from worker.keeper import Held, LeaseLost
from worker.wiring import Ports

LOADING_SECONDS = 900.0  # until a network is there


def restore(held: Held, ports: Ports, committer: Committer) -> None:
    """Decode, restore tile by tile, encode, store, commit. Every way it can end is written into the row, by its token."""
    job = held.job
    began = time.monotonic()
    held.begin()
    try:
        with ports.blobs.open(job.input["key"]) as file:
            source = codec.decode(file, job.input["bytes"], ports.settings.max_pixels)

        held.begin(LOADING_SECONDS)  # it may have to be exported first
        network = ports.networks.get(job.model_name, job.model_version, held.check)
        held.begin()

        ran_seconds = 0.0

        def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            nonlocal ran_seconds
            with ports.networks.device:
                held.check()  # it may have been canceled while others had the device
                started = time.monotonic()
                output = network.run(batch)
                ran_seconds += time.monotonic() - started
                return output

        passes = ensemble.averaged(run, network.multiple) if job.params.get("speed") == "best" else run
        height, width = source.colour.shape[:2]
        plan = ports.networks.plan(network, height, width)
        restored = source.colour.copy()
        held.progress(0, len(plan))
        for done, (tile, pixels) in enumerate(tiles.apply(passes, source.colour, plan), 1):
            restored[tile.top : tile.bottom, tile.left : tile.right] = pixels
            held.progress(done, len(plan))

        encoded = codec.encode(restored, source, job.params["format"])
        key = blob_key(job.id, result_part(job.token))
        _preview(held, ports, "input", source.colour, source.alpha)
        _preview(held, ports, "result", restored, source.alpha)
        draft = _place(ports, key, encoded.data)  # the committer syncs it

        result = {
            "bytes": draft.size, "sha256": draft.sha256(), "type": encoded.type, "width": width, "height": height,
            "bits": encoded.bits, "executor": network.described.executor, "precision": network.described.precision,
            "seconds": round(time.monotonic() - began, 3),
        }  # fmt: skip
        held.conclude()
        success = Success(job, result, key, source.notes + encoded.notes, units=len(plan), device_seconds=ran_seconds)
        committer.succeed(success)  # False: no longer ours; not an error
    except LeaseLost:
        events.emit("job.lost", job_id=job.id, token=job.token)
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)


def _preview(held: Held, ports: Ports, of: str, colour: NDArray[Any], alpha: NDArray[Any] | None) -> None:
    """Store a preview. Nobody syncs it: a power cut may cost it, and costs nothing else."""
    _place(ports, blob_key(held.job.id, preview_part(of, held.job.token)), preview.encode(colour, alpha))


def _place(ports: Ports, key: str, data: bytes) -> Draft:
    draft = ports.blobs.draft()
    try:
        draft.write(data)
        draft.place(key)
    finally:
        draft.discard()
    return draft
