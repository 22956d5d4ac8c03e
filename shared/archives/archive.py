"""A zip that somebody sent. It is checked as a whole; only then are its files read, one after the other, each with a limit.

Nothing is ever written under a name of the archive's: names only say where a picture lies in its batch.
"""

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import IO, BinaryIO, cast

from shared.blobs.store import CHUNK_BYTES, Draft
from shared.errors import Refused

DIRECTORY_BYTES = 32 << 20  # of the list of files, which is read into memory: some 200 000 files with paths of 100 characters
NAME_BYTES = 2048  # of a path: an index of PostgreSQL holds no more than 2.7 kB a row

# Deflate packs zeros 1032 : 1, a scan with its grain hardly 20 : 1, a drawing as BMP some 100 : 1. A small picture of one colour is
# common and harms nobody; what is large and yet packs like nothing is made to fill disks. So what is large decides.
MOST_RATIO = 200
LARGE_BYTES = 16_000_000  # of one file; smaller ones may pack as well as they like
LARGE_ARCHIVE_BYTES = 1_000_000_000  # the same of all together, else many small ones were a large one

ENCRYPTED = 0x1 | 0x40 | 0x2000  # the file, strongly, or the directory itself
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what others unpack into is bounded by nothing that the directory says
LOCAL = struct.Struct("<4s22xHH")  # a file's own header: signature, lengths of its name and of what is behind it
DRIVE = re.compile(r"[A-Za-z]:")
SHOWN = 100  # characters of a name that a sentence repeats
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True)
class Member:
    """A file of an archive, by its path in it, with / between names."""

    path: str
    info: zipfile.ZipInfo

    @property
    def size(self) -> int:
        """Bytes, as the archive says."""
        return self.info.file_size


def looks_like_one(file: BinaryIO) -> None:
    """Raises `Refused` archive_empty or archive_corrupt for what is no zip at all; the rest takes longer to see."""
    file.seek(0)
    start = file.read(4)
    if start in (b"", b"PK\5\6"):  # which has no files, only its end
        raise Refused("archive_empty")
    if not zipfile.is_zipfile(file):
        raise Refused("archive_corrupt", "It is no zip, or its end is missing.")


@contextmanager
def opened(file: BinaryIO) -> Iterator["Archive"]:
    """The archive, checked. Raises `Refused` archive_corrupt, archive_encrypted, archive_traversal, archive_overlap or archive_bomb."""
    try:
        zipped = zipfile.ZipFile(cast("IO[bytes]", _Sparing(file)))
    except _DAMAGED as error:
        raise Refused("archive_corrupt", "The list of its files cannot be read.") from error
    with zipped:
        for info in zipped.infolist():
            _check_name(info)
        members = [Member(str(PurePosixPath(info.filename)), info) for info in zipped.infolist() if not info.is_dir()]
        _check_apart(file, zipped, members)
        yield Archive(zipped, members)


@dataclass(frozen=True)
class Archive:
    """An open archive, of which no two files share a name or a byte."""

    zipped: zipfile.ZipFile
    members: Sequence[Member]  # files, in the order of the archive's own list

    def check_sizes(self, wanted: Iterable[Member], most: int, room: int) -> None:
        """Of what will be unpacked: no file over `most` bytes, all together within `room`.

        Raises `Refused` archive_bomb, archive_corrupt.
        """
        size = packed = 0
        for member in wanted:
            info = member.info
            if info.compress_type not in METHODS:
                raise Refused(
                    "archive_corrupt", f"{_quoted(member.path)} is packed by a method that is not read; pack it anew with deflate."
                )
            if info.file_size > most:
                raise Refused(
                    "archive_bomb", f"{_quoted(member.path)} has {_gb(info.file_size)}; at most {_gb(most)} are taken of one file."
                )
            _check_ratio(_quoted(member.path), info.file_size, info.compress_size, LARGE_BYTES)
            size, packed = size + info.file_size, packed + info.compress_size
        _check_ratio("All of it", size, packed, LARGE_ARCHIVE_BYTES)
        if size > room:
            raise Refused("archive_bomb", f"Its pictures have {_gb(size)}, and {_gb(max(room, 0))} may be used on the disk.")

    def unpack(self, member: Member, draft: Draft, look: Callable[[], None]) -> None:
        """Write the bytes of a file; `look` is called on the way, and may raise.

        Raises `Refused("image_corrupt")` if they are not what the archive says.
        """
        try:
            with self.zipped.open(member.info) as file:
                while data := file.read(CHUNK_BYTES):
                    if draft.size + len(data) > member.size:
                        raise Refused("image_corrupt", "It unpacks to more than the archive says.")
                    draft.write(data)
                    look()
        except _DAMAGED as error:
            raise Refused("image_corrupt", "It is damaged within the archive: its checksum does not fit.") from error
        if draft.size != member.size:
            raise Refused("image_corrupt", "It unpacks to less than the archive says.")


class _Sparing(io.RawIOBase):
    """A file of which nobody reads much at once: zipfile takes the whole list of files, however long it says that it is."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes. Raises `Refused("archive_bomb")`."""
        if size is not None and size > DIRECTORY_BYTES:
            raise Refused("archive_bomb", f"The list of its files alone has {size / 1e6:.0f} MB. Split it.")
        return self._file.read(DIRECTORY_BYTES if size is None or size < 0 else size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file; an offset before its beginning is the archive's fault, not the disk's."""
        if whence == 0 and offset < 0:
            raise zipfile.BadZipFile("before the beginning")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """It is."""
        return True


def _check_name(info: zipfile.ZipInfo) -> None:
    """Raises `Refused` for what leads out of a folder, is no file, or cannot be read."""
    if info.flag_bits & ENCRYPTED:
        raise Refused("archive_encrypted", f"{_quoted(info.orig_filename)} is encrypted.")
    # The first is whole, where zipfile cuts the other at a NUL; the other is, since Python 3.12, what an extra field says in its stead.
    for name in (info.orig_filename, info.filename):
        _check_path(name)
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refused("archive_traversal", f"{_quoted(info.orig_filename)} is a link or a device, and no file.")


def _check_path(name: str) -> None:
    if len(name.encode(errors="replace")) > NAME_BYTES:
        raise Refused("archive_corrupt", f"{_quoted(name)} is longer than {NAME_BYTES} bytes.")
    if name.startswith("/") or DRIVE.match(name):
        raise Refused("archive_traversal", f"{_quoted(name)} begins at the root of a disk.")
    if "\\" in name or "\0" in name:
        raise Refused("archive_traversal", f"{_quoted(name)} holds a character that means something else on some machines.")
    if ".." in name.split("/") or not PurePosixPath(name).parts:
        raise Refused("archive_traversal", f"{_quoted(name)} leads out of its folder.")


def _check_apart(file: BinaryIO, zipped: zipfile.ZipFile, members: Sequence[Member]) -> None:
    """Raises `Refused` where two files share a name or bytes, or one reaches into the list of files: so a few bytes become many files."""
    names: set[str] = set()
    for member in members:
        if member.path in names:
            raise Refused("archive_overlap", f"{_quoted(member.path)} is there twice.")
        names.add(member.path)
    spans = sorted((_span(file, member), member.path) for member in members)
    for ((_, end), _), ((start, _), path) in pairwise(spans):
        if start < end:
            raise Refused("archive_overlap", f"{_quoted(path)} begins within another file.")
    if spans and max(end for (_, end), _ in spans) > zipped.start_dir:
        raise Refused("archive_overlap", "A file reaches into the list of files.")


def _span(file: BinaryIO, member: Member) -> tuple[int, int]:
    """Where a file begins and ends, with its own header."""
    start = member.info.header_offset
    if start < 0:
        raise Refused("archive_corrupt", f"{_quoted(member.path)} begins before the archive.")
    file.seek(start)
    found = file.read(LOCAL.size)
    if len(found) < LOCAL.size or not found.startswith(b"PK\3\4"):
        raise Refused("archive_corrupt", f"{_quoted(member.path)} is not where the list of files says.")
    _, name, extra = LOCAL.unpack(found)
    return start, start + LOCAL.size + name + extra + member.info.compress_size


def _check_ratio(what: str, size: int, packed: int, large: int) -> None:
    if size > large and size > MOST_RATIO * packed:
        raise Refused("archive_bomb", f"{what} unpacks to {_gb(size)}, more than {MOST_RATIO} times its bytes.")


def _quoted(name: str) -> str:
    told = name.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    return f"“{told[:SHOWN]}{'…' if len(told) > SHOWN else ''}”"


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
