"""Receiving multipart bodies: streamed to drafts of the blob store and hashed on the way, never held in memory."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

from flask import Request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from shared.blobs.store import Blobs, Draft
from shared.errors import Refused, Transient
from shared.settings import Settings

UPLOADS = 24  # at once
FIELD_BYTES = 500_000
PARTS = 32

_room = threading.BoundedSemaphore(UPLOADS)


@dataclass(frozen=True)
class Part:
    """One uploaded file."""

    name: str  # as the user called it; never a path of ours
    draft: Draft


@dataclass(frozen=True)
class Upload:
    """A whole request: its fields and its files."""

    fields: dict[str, str]
    parts: dict[str, Part]

    def fingerprint(self, method: str, path: str) -> str:
        """SHA-256 over method, path, every field and every part's hash: what makes two requests the same."""
        digest = hashlib.sha256(f"{method} {path}\n".encode())
        for name, value in sorted(self.fields.items()):
            digest.update(f"{name}={len(value)}:{value}\n".encode())
        for name, part in sorted(self.parts.items()):
            digest.update(f"{name}@{len(part.name)}:{part.name}:{part.draft.sha256()}\n".encode())
        return digest.hexdigest()


@dataclass
class _Sink:
    """What werkzeug writes a file part into: a draft, counting on the way."""

    draft: Draft
    arrived: Callable[[], None]

    def write(self, data: bytes) -> int:
        self.arrived()
        return self.draft.write(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def close(self) -> None:
        """The draft stays open until it is placed or discarded."""


@dataclass
class _Clock:
    """Refuses an upload that lasts too long, and lets `renew` keep a reservation alive meanwhile."""

    seconds: float
    renew: Callable[[], None]
    began: float = field(default_factory=time.monotonic)
    renewed: float = field(default_factory=time.monotonic)

    def arrived(self) -> None:
        now = time.monotonic()
        if now - self.began > self.seconds:
            raise Refused("upload_stalled", f"The upload took more than {self.seconds:g} seconds.")
        if now - self.renewed > 15:
            self.renewed = now
            self.renew()


@contextlib.contextmanager
def receiving(request: Request, blobs: Blobs, settings: Settings, renew: Callable[[], None]) -> Iterator[Upload]:
    """Read the body. Whatever is not placed by the end of the block is discarded.

    Raises `Refused` malformed_multipart, upload_too_large or upload_stalled, `Transient` too_many_uploads.
    """
    if not _room.acquire(blocking=False):
        raise Transient("too_many_uploads", retry_after_s=2)
    drafts: list[Draft] = []
    try:
        yield _read(request, blobs, settings, drafts, _Clock(settings.request_seconds, renew))
    finally:
        _room.release()
        for draft in drafts:
            draft.discard()


def _read(request: Request, blobs: Blobs, settings: Settings, drafts: list[Draft], clock: _Clock) -> Upload:
    if request.mimetype != "multipart/form-data" or not request.mimetype_params.get("boundary"):
        raise Refused("malformed_multipart")
    if (request.content_length or 0) > settings.max_upload:
        raise Refused("upload_too_large", f"At most {settings.max_upload / 1e6:g} MB are received.")

    def sink(*_: Any, **__: Any) -> IO[bytes]:
        drafts.append(blobs.draft())
        return cast("IO[bytes]", _Sink(drafts[-1], clock.arrived))

    parser = FormDataParser(stream_factory=sink, max_form_memory_size=FIELD_BYTES, max_form_parts=PARTS, silent=False)
    request.max_content_length = settings.max_upload
    try:
        with _impatient(request, settings.stall_seconds):
            _, fields, files = parser.parse(request.stream, request.mimetype, request.content_length, request.mimetype_params)
    except RequestEntityTooLarge as error:
        raise Refused("upload_too_large") from error
    except TimeoutError as error:
        raise Refused("upload_stalled", f"No byte came for {settings.stall_seconds:g} seconds.") from error
    except (ValueError, ClientDisconnected, ConnectionError) as error:
        raise Refused("malformed_multipart", "The form ends early or is damaged; send it again.") from error
    for name in (*fields, *files):
        if len(fields.getlist(name)) + len(files.getlist(name)) > 1:
            raise Refused("invalid_field", f"“{name}” is there twice.", fields={name: "given twice"})
    parts = {name: Part(item.filename or "", cast("_Sink", cast("object", item.stream)).draft) for name, item in files.items()}
    return Upload(dict(fields.items()), parts)


@contextlib.contextmanager
def _impatient(request: Request, stall_seconds: float) -> Iterator[None]:
    """Within it, a connection that brings no byte for `stall_seconds` raises TimeoutError."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        yield
        return
    before = connection.gettimeout()
    connection.settimeout(stall_seconds)
    try:
        yield
    finally:
        connection.settimeout(before)
