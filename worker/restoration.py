"""One attempt at one restoration, in one function: read it from top to bottom."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.blobs.store import Draft
from shared.errors import Refused, Transient
from shared.folders import inputs as folder_inputs
from shared.folders import names
from shared.imaging import codec, header, masks, metrics, preview, tiles
from shared.imaging.codec import Source
from shared.imaging.pixels import Pixels
from shared.jobs.job import Job, State, Success, blob_key, preview_part, result_part
from trainer.execution import ensemble
from worker import inputs
from worker.committer import Committer
from worker.ending import end
from worker.keeper import Held
from worker.patience import until_answered
from worker.wiring import Ports

LOADING_SECONDS = 900.0  # until a network is there


def restore(held: Held, ports: Ports, committer: Committer) -> None:
    """Decode, restore tile by tile, encode, store, commit. Every way it can end is written into the row, by its token."""
    job = held.job
    began = time.monotonic()
    held.begin()
    try:
        _make_way(ports, job)
        previews: dict[str, bytes] = {}
        read = dict(job.input)  # with the hashes of what is read in place
        source = _decode(held, ports, "input", previews, read)
        height, width = source.colour.shape[:2]
        holes = masks.holes(_decode(held, ports, "mask", previews, read), height, width) if "mask" in job.input else None
        reference = _reference(held, ports, previews, read, height, width)

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

        _see(held, "result", restored, source, previews)
        held.check()
        encoded = codec.encode(restored, source, _format(job.params["format"], source, holes), job.params.get("quality"))
        del restored
        key = blob_key(job.id, result_part(job.token)) if job.output is None else names.part(job.id, job.token)
        with _drafted(ports, job) as draft:
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
        _end(
            ports,
            committer,
            Success(job, result, key, source.notes + encoded.notes, figures, len(plan), ran_seconds, read if job.output else None),
        )
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)


def _end(ports: Ports, committer: Committer, success: Success) -> None:
    """Commit. Where the attempt is no longer ours, which is not an error, what it has put into a folder of the user's goes."""
    job = success.job
    if committer.succeed(success) or job.output is None:
        return
    now = until_answered(lambda: ports.jobs.get(job.id))
    if now is None or (now.token, now.state) != (job.token, State.SUCCEEDED):
        ports.outputs.tidy(job, [job.token])


def _decode(held: Held, ports: Ports, name: str, previews: dict[str, bytes], read: dict[str, Any]) -> Source:
    """The picture ("input"), or the mask or the reference beside it; its preview into `previews`, its hash into `read`.

    An error says which of the two beside the picture it is about.
    """
    part = held.job.input if name == "input" else held.job.input[name]
    held.check()
    try:
        with inputs.opened(ports, part) as file:
            source = codec.decode(file, part["bytes"], ports.settings.max_pixels)
            if inputs.in_place(part):
                hashed = {"sha256": folder_inputs.sha256(file)}
                read |= hashed if name == "input" else {name: part | hashed}
    except Refused as error:
        raise (error if name == "input" else error.of(name)) from error
    _see(held, name, source.colour, source, previews)
    return source


def _reference(held: Held, ports: Ports, previews: dict[str, bytes], read: dict[str, Any], height: int, width: int) -> Pixels | None:
    """What the output is compared with, if there is such a thing."""
    if "reference" not in held.job.input:
        return None
    reference = codec.straight(_decode(held, ports, "reference", previews, read))
    metrics.require_size(reference, height, width)
    return reference


def _see(held: Held, of: str, colour: Pixels, source: Source, previews: dict[str, bytes]) -> None:
    """A preview of `colour`, with what is transparent in `source`. None of what is read in place: its user's own programs show it."""
    held.check()
    if held.job.output is None:
        previews[of] = preview.encode(colour, source.alpha, codec.associated(source))


def _make_way(ports: Ports, job: Job) -> None:
    """For an output in place: take away what dead attempts left there.

    Raises `Transient("storage_full")` where its disk is nearly full; the others' lane pauses by itself.
    """
    if job.output is None:
        return
    if job.token > 1:
        ports.outputs.tidy(job, range(1, job.token))
    if ports.outputs.free(job) < ports.settings.min_free:
        raise Transient("storage_full")


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
        with _drafted(ports, held.job) as draft:
            draft.write(data)
            draft.place(blob_key(held.job.id, preview_part(of, held.job.token)))


@contextmanager
def _drafted(ports: Ports, job: Job) -> Iterator[Draft]:
    """A draft where the files of the job go, of which nothing is left unless it is placed."""
    draft: Draft = ports.blobs.draft() if job.output is None else ports.outputs.draft(job)
    try:
        yield draft
    finally:
        draft.discard()
