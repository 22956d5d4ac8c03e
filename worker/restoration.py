"""One attempt at one restoration, in one function: read it from top to bottom."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import events
from shared.blobs.store import Draft
from shared.errors import Refused
from shared.imaging import codec, header, masks, metrics, preview, tiles
from shared.imaging.codec import Source
from shared.imaging.pixels import Pixels
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
        previews: dict[str, bytes] = {}
        source = _decode(held, ports, "input", previews)
        height, width = source.colour.shape[:2]
        holes = masks.holes(_decode(held, ports, "mask", previews), height, width) if "mask" in job.input else None
        reference = codec.straight(_decode(held, ports, "reference", previews)) if "reference" in job.input else None
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
        for done, (tile, pixels) in enumerate(tiles.apply(passes, source.colour, plan, holes, job.params.get("strength", 1.0)), 1):
            restored[tile.top : tile.bottom, tile.left : tile.right] = pixels
            held.progress(done, len(plan))
        del pixels  # memory: worker/memory.py counts what is there at once

        previews["result"] = _preview(held, restored, source)
        held.check()
        encoded = codec.encode(restored, source, _format(job.params["format"], source, holes), job.params.get("quality"))
        del restored
        key = blob_key(job.id, result_part(job.token))
        with _drafted(ports) as draft:
            draft.write(encoded.data)
            encoded = replace(encoded, data=b"")
            figures = _judged(held, ports, draft, source, holes, reference)
            _place(held, ports, previews)
            held.check()
            draft.place(key)  # the committer syncs it

        result = {
            "bytes": draft.size, "sha256": draft.sha256(), "type": encoded.type, "width": width, "height": height,
            "bits": encoded.bits, "executor": network.described.executor, "precision": network.described.precision,
            "seconds": round(time.monotonic() - began, 3),
        }  # fmt: skip
        held.conclude()
        # It gives False where the attempt is no longer ours, which is not an error.
        committer.succeed(Success(job, result, key, source.notes + encoded.notes, figures, len(plan), ran_seconds))
    except LeaseLost:
        events.emit("job.lost", job_id=job.id, token=job.token)
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)


def _decode(held: Held, ports: Ports, name: str, previews: dict[str, bytes]) -> Source:
    """The picture ("input"), or the mask or the reference beside it, and its preview into `previews`.

    An error says which of the two beside the picture it is about.
    """
    part = held.job.input if name == "input" else held.job.input[name]
    held.check()
    try:
        with ports.blobs.open(part["key"]) as file:
            source = codec.decode(file, part["bytes"], ports.settings.max_pixels)
    except Refused as error:
        raise (error if name == "input" else error.of(name)) from error
    previews[name] = _preview(held, source.colour, source)
    return source


def _preview(held: Held, colour: Pixels, source: Source) -> bytes:
    """Of `colour`, with what is transparent in `source`."""
    held.check()
    return preview.encode(colour, source.alpha, codec.associated(source))


def _format(asked: str, source: Source, holes: NDArray[np.bool_] | None) -> str:
    """What was asked for; but a lossy format is not kept where known pixels are to come back as they were."""
    return "png" if asked == "keep" and holes is not None and source.header.format in header.LOSSY else asked


def _judged(
    held: Held, ports: Ports, draft: Draft, source: Source, holes: NDArray[np.bool_] | None, reference: Pixels | None
) -> dict[str, Any] | None:
    """The figures against the reference, if there is one. What counts is what the user will see of the file.

    Raises `Fault("internal")` where known pixels are not in it as they were.
    """
    if holes is None and reference is None:
        return None
    held.check()
    with draft.reader() as file:
        produced = codec.decode(file, draft.size, ports.settings.max_pixels)
    if holes is not None:
        held.check()
        masks.assert_known(source, produced, holes)
    if reference is None:
        return None
    held.check()
    return metrics.judge(codec.straight(produced), codec.straight(source), reference)


def _place(held: Held, ports: Ports, previews: dict[str, bytes]) -> None:
    """Store the previews. Nobody syncs them: a power cut may cost them, and costs nothing else."""
    for of, data in previews.items():
        held.check()
        with _drafted(ports) as draft:
            draft.write(data)
            draft.place(blob_key(held.job.id, preview_part(of, held.job.token)))


@contextmanager
def _drafted(ports: Ports) -> Iterator[Draft]:
    """A draft of which nothing is left unless it is placed."""
    draft = ports.blobs.draft()
    try:
        yield draft
    finally:
        draft.discard()
