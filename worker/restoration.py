"""One attempt at one restoration, in one function: read it from top to bottom."""

import io
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import events
from shared.blobs.store import Draft
from shared.errors import Refused
from shared.imaging import codec, masks, metrics, preview, tiles
from shared.imaging.codec import Source
from shared.jobs.job import PARTS, Success, blob_key, preview_part, result_part
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
        source = _decode(job.input, ports)
        height, width = source.colour.shape[:2]
        beside = {name: _decode_part(job.input, name, ports) for name in PARTS if name in job.input}
        holes = masks.holes(beside["mask"], height, width) if "mask" in beside else None
        reference = codec.straight(beside["reference"]) if "reference" in beside else None
        if reference is not None:
            metrics.require_size(reference, height, width)

        held.begin(LOADING_SECONDS)  # it may have to be exported first
        network = ports.networks.get(job.model_name, job.model_version, held.check)
        held.begin()

        ran_seconds = 0.0

        def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            nonlocal ran_seconds
            with ports.networks.device:
                held.check()  # it may have been canceled while others had the device
                started = time.monotonic()
                output = network.run(*inputs)
                ran_seconds += time.monotonic() - started
                return output

        passes = ensemble.averaged(run, network.multiple) if job.params.get("speed") == "best" else run
        plan = ports.networks.plan(network, height, width, holes)
        restored = source.colour.copy()
        held.progress(0, len(plan))
        for done, (tile, pixels) in enumerate(tiles.apply(passes, source.colour, plan, holes), 1):
            restored[tile.top : tile.bottom, tile.left : tile.right] = pixels
            held.progress(done, len(plan))

        exact = holes is not None and source.header.format in codec.LOSSY  # else the known pixels would not come back as they were
        encoded = codec.encode(restored, source, "png" if exact and job.params["format"] == "keep" else job.params["format"])
        if holes is not None or reference is not None:  # what counts is what the user will see of the file
            produced = codec.decode(io.BytesIO(encoded.data), len(encoded.data), ports.settings.max_pixels)
        if holes is not None:
            masks.assert_known(source, produced, holes)
        figures = metrics.judge(codec.straight(produced), codec.straight(source), reference) if reference is not None else None

        key = blob_key(job.id, result_part(job.token))
        for name, part in {"input": source, **beside}.items():
            _preview(held, ports, name, part.colour, part.alpha)
        _preview(held, ports, "result", restored, source.alpha)
        draft = _place(ports, key, encoded.data)  # the committer syncs it

        result = {
            "bytes": draft.size, "sha256": draft.sha256(), "type": encoded.type, "width": width, "height": height,
            "bits": encoded.bits, "executor": network.described.executor, "precision": network.described.precision,
            "seconds": round(time.monotonic() - began, 3),
        }  # fmt: skip
        held.conclude()
        success = Success(job, result, key, source.notes + encoded.notes, figures, len(plan), ran_seconds)
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


def _decode(part: dict[str, Any], ports: Ports) -> Source:
    with ports.blobs.open(part["key"]) as file:
        return codec.decode(file, part["bytes"], ports.settings.max_pixels)


def _decode_part(given: dict[str, Any], name: str, ports: Ports) -> Source:
    """The mask or the reference beside a picture; an error says which of them it is about."""
    try:
        return _decode(given[name], ports)
    except Refused as error:
        raise error.of(name) from error
