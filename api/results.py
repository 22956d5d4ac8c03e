"""The results of a batch as one zip, written while it is sent: nothing of it is stored, and no picture is in memory as a whole.

Results are stored as they are, since pictures are packed already. The same results give the same bytes. Of each picture that was sent a
few hundred bytes stay in memory, for the zip's own list at its end.
"""

import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, BinaryIO, cast

from flask import Response, json, request

from api import jobs as jobs_api
from api import manifest
from api.wiring import Ports
from shared.batches.batch import Batch
from shared.blobs.store import CHUNK_BYTES, Draft
from shared.errors import Refused, Transient
from shared.folders import names
from shared.jobs.job import Job, State

DOWNLOADS = 8  # at once: each holds one of the server's threads for as long as its client takes
MANIFEST = "manifest.jsonl"  # what the last member is called
MODE = (stat.S_IFREG | 0o644) << 16

_room = threading.BoundedSemaphore(DOWNLOADS)


def send(ports: Ports, batch: Batch) -> Response:
    """The zip. Raises `Transient("too_many_downloads")`."""
    response = Response(content_type="application/zip")
    response.headers["Content-Disposition"] = f'attachment; filename="lacuna-{batch.id}.zip"'
    response.headers.update(jobs_api.SANDBOXED)
    if request.method == "HEAD":
        return response
    if not _room.acquire(blocking=False):
        raise Transient("too_many_downloads", retry_after_s=5)
    response.call_on_close(_room.release)
    response.response = _begun(ports, batch)
    return response


def _begun(ports: Ports, batch: Batch) -> Iterator[bytes]:
    lines = ports.blobs.draft()
    try:
        yield from _zipped(ports, batch, lines)
    finally:
        lines.discard()


def _zipped(ports: Ports, batch: Batch, lines: Draft) -> Iterator[bytes]:
    """First the results; the manifest, which tells of each what was sent, is gathered in `lines` and comes last."""
    sink = _Sink()
    with zipfile.ZipFile(cast("IO[bytes]", sink), "w", zipfile.ZIP_STORED) as zipped:
        for item in manifest.items(ports, batch.id):
            sent: dict[str, str | None] = {"file": None, "left_out": None}
            if item.job is not None and item.job.state is State.SUCCEEDED:
                name = _free_name(zipped, item.job)
                try:
                    file = _opened(ports, item.job)
                except Refused as refused:
                    sent["left_out"] = refused.code
                else:
                    sent["file"] = name
                    with file:
                        yield from _member(zipped, sink, _info(name, (item.job.result or {})["bytes"], item.job.finished_at), file)
            lines.write((json.dumps(manifest.row(item) | sent) + "\n").encode())
        with lines.reader() as file:
            yield from _member(zipped, sink, _info(MANIFEST, lines.size, batch.created_at), file)
    yield sink.taken()


def _opened(ports: Ports, job: Job) -> BinaryIO:
    """The result. Raises `Refused`: result_expired where it is not there any more, file_changed where its user changed it."""
    if job.expires_at is not None:
        raise Refused("result_expired")
    try:
        return ports.blobs.open(job.result_key or "") if job.output is None else jobs_api.placed(ports, job)
    except (FileNotFoundError, Refused) as error:
        if isinstance(error, Refused) and error.code == "file_changed":
            raise
        raise Refused("result_expired") from error


def _member(zipped: zipfile.ZipFile, sink: "_Sink", info: zipfile.ZipInfo, file: BinaryIO) -> Iterator[bytes]:
    left = info.file_size
    with zipped.open(info, "w") as member:
        while left and (data := file.read(min(CHUNK_BYTES, left))):
            left -= len(data)
            member.write(data)
            yield sink.taken()
    if left:
        raise OSError(f"{info.filename} ended early")  # no zip without its end looks whole
    yield sink.taken()


def _info(name: str, size: int, at_ms: int | None) -> zipfile.ZipInfo:
    """With its size, by which zipfile knows whether it needs 64 bits."""
    at = datetime.fromtimestamp((at_ms or 0) / 1000, UTC).timetuple()[:6]
    info = zipfile.ZipInfo(name, max(at, (1980, 1, 1, 0, 0, 0)))
    info.file_size, info.external_attr, info.create_system = size, MODE, 3
    return info


def _free_name(zipped: zipfile.ZipFile, job: Job) -> str:
    """The path of a picture's result; with the job's id before the ending that it got, where something else is called so."""
    result, path = job.result or {}, job.path or ""
    before, after = str(job.input["format"]), str(result["type"]).removeprefix("image/")
    name = names.output(path, before, after)
    if name not in zipped.NameToInfo and name != MANIFEST:
        return name
    return names.output(f"{path}.{job.id}", before, after)


class _Sink(io.RawIOBase):
    """What a zip is written into, and sent from; nobody can seek in it."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # zipfile writes bytes
        """Append."""
        self._written.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """What was written since, which is then forgotten."""
        taken = b"".join(self._written)
        self._written.clear()
        return taken
