"""WebP: RFC 9649."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from shared.errors import Refused
from shared.imaging.containers.described import Header, Metadata
from shared.imaging.containers.exif import exif_of

LONGEST_SIDE = 16_383  # pixels

_CHUNKS = 10_000
_KEPT = {b"ICCP": "profile", b"EXIF": "exif", b"XMP ": "xmp"}
_LONGEST_KEPT = 64_000_000  # bytes
_ANIMATED, _WITH_ALPHA = 0x02, 0x10


def is_webp(start: bytes) -> bool:
    """Whether a file begins as a WebP does."""
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def read(file: BinaryIO, size: int) -> Header:
    """Walk the chunks to the picture, which must lie within the file; its own header has the last word on its size."""
    canvas: tuple[int, int] | None = None
    alpha = False
    for name, length in _chunks(file, size):
        if name == b"VP8X":
            if length != 10:
                raise Refused("image_corrupt", "Its header has an impossible length.")
            data = file.read(10)
            alpha = bool(data[0] & _WITH_ALPHA)
            if data[0] & _ANIMATED:
                raise Refused("multiple_frames", "It is an animated WebP: restore its frames as single pictures.")
            canvas = 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
        elif name in {b"ANIM", b"ANMF"}:
            raise Refused("multiple_frames", "It is an animated WebP: restore its frames as single pictures.")
        elif name in {b"VP8 ", b"VP8L"}:
            width, height, own_alpha = _lossless(file.read(5)) if name == b"VP8L" else _lossy(file.read(10))
            if canvas not in (None, (width, height)):
                raise Refused("image_corrupt", "It has two headers that contradict each other.")
            return Header("WebP", width, height, "RGBA" if own_alpha or (alpha and canvas) else "RGB", 8)
    raise Refused("image_corrupt", "It holds no picture.")


def _chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    file.seek(4)
    length_bytes = file.read(4)
    if len(length_bytes) < 4 or size < 20:
        raise Refused("image_truncated", "The file ends within its header.")
    end = 8 + int.from_bytes(length_bytes, "little")
    if end > size + 1:  # some writers forget the last padding byte
        raise Refused("image_truncated", "The file is shorter than its header says.")
    at = 12
    for _ in range(_CHUNKS):
        if at + 8 > end:
            return
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
        if at + 8 + length > size:
            raise Refused("image_truncated", f"The file ends within its {name.decode('latin-1').strip()} chunk.")
        yield name, length
        at += 8 + length + length % 2


def _lossy(data: bytes) -> tuple[int, int, bool]:
    if len(data) < 10 or data[0] & 1 or data[3:6] != b"\x9d\x01\x2a":
        raise Refused("image_corrupt", "The picture's own header is damaged.")
    width, height = struct.unpack("<HH", data[6:10])
    return width & 0x3FFF, height & 0x3FFF, False


def _lossless(data: bytes) -> tuple[int, int, bool]:
    if len(data) < 5 or data[0] != 0x2F:
        raise Refused("image_corrupt", "The picture's own header is damaged.")
    fields = int.from_bytes(data[1:5], "little")
    return (fields & 0x3FFF) + 1, (fields >> 14 & 0x3FFF) + 1, bool(fields >> 28 & 1)


def is_lossless(file: BinaryIO, size: int) -> bool:
    """Whether the picture is stored without loss."""
    return any(name == b"VP8L" for name, _ in _chunks(file, size))


def metadata(file: BinaryIO, size: int) -> tuple[Metadata, list[str]]:
    """What a WebP keeps beside its pixels, and notes; `read` has accepted it before."""
    found = Metadata()
    notes: list[str] = []
    for name, length in _chunks(file, size):
        if name not in _KEPT:
            continue
        if length > _LONGEST_KEPT:
            notes.append(f"{_KEPT[name]}_dropped")
            continue
        data = file.read(length)
        if name == b"ICCP":
            found = replace(found, profile=data or None)
        elif name == b"XMP ":
            found = replace(found, xmp=data or None)
        else:
            exif, whole = exif_of(data)
            found = replace(found, exif=exif)
            notes += [] if whole else ["exif_corrupt"]
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "little")
    file.seek(end)
    notes += ["trailing_bytes"] if file.read(4).strip(b"\0") else []
    return found, list(dict.fromkeys(notes))
