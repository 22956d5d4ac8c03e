"""Receiving bodies. Multipart ones are streamed to drafts of the blob store and hashed on the way, never held in memory; JSON is small."""

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

from flask import Request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]  # gunicorn has no types
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from api.problems import SHOWN
from shared.blobs.store import Blobs, Draft
from shared.errors import Refused, Transient
from shared.settings import Settings

UPLOADS = 24  # at once
FIELD_BYTES = 500_000
PARTS = 32
JSON_BYTES = 64_000
NAME_LENGTH = 255  # of a file; it comes back in a header

_Files = MultiDict[str, FileStorage]
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
        parts = {name: [part.name, part.draft.sha256()] for name, part in self.parts.items()}
        return hashlib.sha256(json.dumps([method, path, self.fields, parts], sort_keys=True).encode()).hexdigest()


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
        self.check()
        if time.monotonic() - self.renewed > 15:
            self.renewed = time.monotonic()
            self.renew()

    def check(self) -> None:
        if time.monotonic() - self.began > self.seconds:
            raise Refused("upload_stalled", f"The upload took more than {self.seconds:g} seconds.")


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
    fields, files = _parse(request, parser, settings, clock)
    if None in fields or None in files:
        raise Refused("malformed_multipart", "A part of the form has no name.")
    for name in (*fields, *files):
        if len(fields.getlist(name)) + len(files.getlist(name)) > 1:
            raise Refused("invalid_field", f"“{name[:SHOWN]}” is there twice.", fields={name[:SHOWN]: "given twice"})
    for name, item in files.items():
        if len(item.filename or "") > NAME_LENGTH:
            raise Refused(
                "invalid_field", f"A file's name has at most {NAME_LENGTH} characters.", fields={name[:SHOWN]: "its name is too long"}
            )
    parts = {name: Part(item.filename or "", cast("_Sink", cast("object", item.stream)).draft) for name, item in files.items()}
    return Upload(dict(fields.items()), parts)


def _parse(request: Request, parser: FormDataParser, settings: Settings, clock: _Clock) -> tuple[MultiDict[str, str], _Files]:
    request.max_content_length = settings.max_upload + 1  # werkzeug refuses a body that reaches the limit
    with _reading(request, settings, clock, "malformed_multipart", "The form ends early or is damaged; send it again."):
        _, fields, files = parser.parse(request.stream, request.mimetype, request.content_length, request.mimetype_params)
    return fields, files


def receive_json(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object that is the body. Raises `Refused` malformed_json, invalid_field, upload_too_large or upload_stalled."""
    if request.mimetype != "application/json":
        raise Refused("malformed_json")
    request.max_content_length = JSON_BYTES
    clock = _Clock(settings.request_seconds, lambda: None)
    large = f"JSON has at most {JSON_BYTES} bytes here."
    with _reading(request, settings, clock, "malformed_json", "It ends early; send it again.", large):
        body = request.get_data()
    try:
        given = json.loads(body.decode(), object_pairs_hook=_once)  # NaN is refused with the name of its field
    except (ValueError, RecursionError) as error:
        raise Refused("malformed_json") from error
    if not isinstance(given, dict):
        raise Refused("malformed_json")
    return given


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)[:SHOWN]
        raise Refused("invalid_field", f"“{name}” is there twice.", fields={name: "given twice"})
    return found


@contextlib.contextmanager
def _reading(request: Request, settings: Settings, clock: _Clock, malformed: str, detail: str, large: str | None = None) -> Iterator[None]:
    """Within it the body is read. What goes wrong with it is `Refused`: upload_too_large, upload_stalled or the code `malformed`."""
    try:
        with _impatient(request, settings):
            yield
    except RequestEntityTooLarge as error:
        raise Refused("upload_too_large", large) from error
    except (ValueError, ClientDisconnected, ParseException) as error:
        clock.check()
        if isinstance(error.__context__, TimeoutError):  # werkzeug calls whatever a read raises a disconnect
            raise Refused("upload_stalled", f"No byte came for {settings.stall_seconds:g} seconds.") from error
        raise Refused(malformed, detail) from error


@contextlib.contextmanager
def _impatient(request: Request, settings: Settings) -> Iterator[None]:
    """Within it, a connection that brings no byte for `stall_seconds` raises TimeoutError; after `request_seconds` it ends.

    Only the second stops a body that trickles: reading returns when a whole buffer is there.
    """
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        yield
        return
    before = connection.gettimeout()
    connection.settimeout(settings.stall_seconds)
    _deadlines.begin(connection, settings.request_seconds)
    try:
        yield
    finally:
        _deadlines.end(connection)
        connection.settimeout(before)


class _Deadlines:
    """Ends the reading from connections whose time is over. One thread looks at all of them, each half second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[socket.socket, float] = {}
        self._thread: threading.Thread | None = None

    def begin(self, connection: socket.socket, seconds: float) -> None:
        """From now on it has so many seconds."""
        with self._lock:
            self._ends[connection] = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()

    def end(self, connection: socket.socket) -> None:
        """It was read, or is over."""
        with self._lock:
            self._ends.pop(connection, None)

    def _watch(self) -> None:
        while True:
            time.sleep(0.5)
            with self._lock:
                over = [connection for connection, end in self._ends.items() if end <= time.monotonic()]
                for connection in over:
                    del self._ends[connection]
                    with contextlib.suppress(OSError):  # it ended by itself
                        connection.shutdown(socket.SHUT_RD)


_deadlines = _Deadlines()
