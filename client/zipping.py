"""A folder's pictures as a zip that is made while it is sent: nothing is stored, and nothing is compressed, as pictures are already."""

import io
import os
import threading
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.errors import ClientError, Stopped
from client.folder import Found, Unreadable, walk
from client.restoring import disk_error

CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Pictures:
    """Those below a folder, by their paths in it, and what else is there."""

    folder: Path
    paths: Sequence[str]
    bytes: int
    ignored: int
    unreadable: Sequence[Unreadable]


def pictures(folder: Path) -> Pictures:
    """All pictures below `folder`, in the order of their paths. Raises `ClientError` where there is none."""
    ignored: list[str] = []
    found = list(walk(folder, ignored.append))
    seen = sorted((one for one in found if isinstance(one, Found)), key=lambda one: one.path)
    unreadable = [one for one in found if isinstance(one, Unreadable)]
    if not seen:
        raise ClientError(
            "folder_empty", f"{folder} holds no pictures", "They are known by the endings of their names: jpg, png, tif, webp, bmp."
        )
    return Pictures(folder, [one.path for one in seen], sum(one.stat.st_size for one in seen), len(ignored), unreadable)


@contextmanager
def zipped(pictures: Pictures, sent: Callable[[int], None], stopped: threading.Event) -> Iterator["FolderZip"]:
    """The zip of these pictures, to be read once: the same bytes each time, as long as the pictures are the same.

    `sent` hears how many bytes of pictures have gone so far.
    """
    with closing(_made(pictures, sent, stopped)) as chunks:
        yield FolderZip(chunks)


class FolderZip:
    """What is sent."""

    def __init__(self, chunks: Generator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """At most `size` bytes; none at the end. Raises `ClientError` for a picture that cannot be read any more."""
        while not self._left and (chunk := next(self._chunks, None)) is not None:
            self._left = chunk
        data, self._left = self._left[:size], self._left[size:]
        return data


def _made(pictures: Pictures, sent: Callable[[int], None], stopped: threading.Event) -> Generator[bytes]:
    gone, pipe = 0, _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as made:
        for path in pictures.paths:
            place = pictures.folder / path
            info = zipfile.ZipInfo(os.fsencode(path).decode(errors="replace"))
            try:
                with place.open("rb") as file, made.open(info, "w", force_zip64=os.fstat(file.fileno()).st_size >= 1 << 31) as entry:
                    while data := file.read(CHUNK_BYTES):
                        if stopped.is_set():
                            raise Stopped
                        entry.write(data)
                        gone += len(data)
                        sent(gone)
                        yield pipe.taken()
            except OSError as error:
                raise disk_error(error, place) from error
    yield pipe.taken()


class _Pipe(io.RawIOBase):
    """What is written to it waits until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Append."""
        self._written += data
        return len(data)

    def taken(self) -> bytes:
        """What waits."""
        data = bytes(self._written)
        self._written.clear()
        return data
