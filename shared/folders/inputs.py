"""Pictures that are read where they lie. A job remembers how it found them; what changed since is not restored by accident."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from shared.errors import Refused
from shared.folders import names
from shared.folders.folder import Folder
from shared.folders.roots import Roots
from shared.imaging import header

CHUNK_BYTES = 1 << 20


def described(folder: Folder, place: str, path: str, max_pixels: int) -> dict[str, Any]:
    """What a job remembers of the picture at `path` below the folder `place`. Raises `Refused` for what its header shows."""
    with folder.file(path) as file:
        size, mtime_ns, inode = _identity(file)
        known = header.read(file, size, max_pixels)
    return {
        "name": names.told(path.rsplit("/", 1)[-1]), "bytes": size, "sha256": None, "format": known.format, "width": known.width,
        "height": known.height, "mode": known.mode, "bits": known.bits, "folder": place, "path": path, "mtime_ns": mtime_ns,
        "inode": inode,
    }  # fmt: skip


@contextmanager
def opened(roots: Roots, part: dict[str, Any]) -> Iterator[BinaryIO]:
    """The file that a part of an input describes. Raises `Refused("file_changed")` if it is not as it was, before or afterwards."""
    with roots.source(part["folder"]) as folder, folder.file(part["path"]) as file:
        _check(file, part)
        yield file
        _check(file, part)


def sha256(file: BinaryIO) -> str:
    """Of all of it."""
    file.seek(0)
    hashed = hashlib.sha256()
    while data := file.read(CHUNK_BYTES):
        hashed.update(data)
    return hashed.hexdigest()


def _check(file: BinaryIO, part: dict[str, Any]) -> None:
    if _identity(file) != (part["bytes"], part["mtime_ns"], part["inode"]):
        raise Refused("file_changed")


def _identity(file: BinaryIO) -> tuple[int, int, int]:
    """Size, time in ns and inode as databases hold them, in 64 bits with a sign: inodes of pooled and remote disks use all bits."""
    found = os.fstat(file.fileno())
    return found.st_size, _signed(found.st_mtime_ns), _signed(found.st_ino)


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
