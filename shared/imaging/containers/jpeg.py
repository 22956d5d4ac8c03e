"""JPEG: ITU-T T.81, with the segments of EXIF, XMP, ICC and Photoshop."""

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from shared.errors import Refused
from shared.imaging.containers import photoshop
from shared.imaging.containers.described import Header, Metadata
from shared.imaging.containers.exif import exif_of

SIGNATURE = b"\xff\xd8\xff"
LONGEST_SIDE = 65_500  # pixels, of libjpeg

_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_LONGEST_FILL = 1 << 16  # bytes between two segments, which a JPEG may fill up
_MOST_PER_PIXEL, _SLACK = 24, 1 << 20  # bytes: no JPEG needs more, what lies behind is no part of its picture
_SEGMENTS = 10_000  # before the first scan; some photos have hundreds
_LONGEST = 65_533  # bytes in one segment

_APP0, _APP1, _APP2, _APP13, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xFE
_DECODERS_OWN = {0xE0, 0xEE}  # JFIF and Adobe say how the channels are to be read
_EXIF, _XMP, _XMP_MORE = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_ICC, _MPF = b"ICC_PROFILE\0", b"MPF\0"
_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # what ends the data of a scan


def read(file: BinaryIO, size: int) -> Header:
    """Walk the segments from SOI to the first scan, which must lie within the file."""
    header: Header | None = None
    for marker, length in _segments(file, size):
        if marker in _SOF:
            header = _header(file.read(length))
        elif marker == 0xDA:
            if header is None:
                raise Refused("image_corrupt", "The picture begins before its header.")
            file.seek(length, 1)
            if not file.read(1):  # where it ends too early, only decoding shows
                raise Refused("image_truncated", "The file ends where the picture should begin.")
            return header
    raise Refused("image_corrupt", "Its header has more segments than any picture.")


def _segments(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """(marker, length of its data) of each segment up to the first scan, all within the file, with `file` at the data."""
    at = 2
    for _ in range(_SEGMENTS):
        file.seek(at)
        marker = _next_marker(file)
        if marker in _STANDALONE:
            at = file.tell()
            continue
        if marker == 0xD9:
            raise Refused("image_truncated", "The file ends before the picture begins.")
        length_bytes = file.read(2)
        if len(length_bytes) < 2:
            raise Refused("image_truncated", "The file ends within its header.")
        (length,) = struct.unpack(">H", length_bytes)
        if length < 2:
            raise Refused("image_corrupt", "A segment has an impossible length.")
        at = file.tell() + length - 2
        if at > size:
            raise Refused("image_truncated", "The file ends within its header.")
        yield marker, length - 2


def _next_marker(file: BinaryIO) -> int:
    byte = file.read(1)
    for _ in range(_LONGEST_FILL):
        if byte != b"\xff":
            break
        byte = file.read(1)
        if byte not in (b"\xff", b"\x00", b""):
            return byte[0]
    raise Refused("image_truncated" if byte == b"" else "image_corrupt", "A segment of the header is missing or damaged.")


def _header(data: bytes) -> Header:
    if len(data) < 6:
        raise Refused("image_corrupt", "The header is too short.")
    bits, height, width, channels = struct.unpack(">BHHB", data[:6])
    if channels not in _MODES:
        raise Refused("image_corrupt", f"The header names {channels} channels.")
    if bits != 8:
        raise Refused("unsupported_format", f"It is a JPEG of {bits} bits a channel: save it as a 16-bit TIFF or PNG.")
    return Header("JPEG", width, height, _MODES[channels], bits)


def metadata(file: BinaryIO, size: int) -> tuple[Metadata, list[str]]:
    """What a JPEG keeps beside its pixels, and notes; `read` has accepted it before."""
    found = Metadata()
    notes: list[str] = []
    profile: dict[int, bytes] = {}
    for marker, length in _segments(file, size):
        if marker == 0xDA:
            break
        if marker == _APP0:
            found = replace(found, dpi=found.dpi or _jfif_dpi(file.read(length)))
        elif marker == _APP1:
            found = _described(found, file.read(length), notes)
        elif marker == _APP2:
            data = file.read(length)
            if data.startswith(_ICC) and length > len(_ICC) + 2:
                profile.setdefault(data[len(_ICC)], data[len(_ICC) + 2 :])
            elif data.startswith(_MPF):
                notes.append("secondary_images_dropped")
        elif marker == _APP13:
            found = replace(found, iptc=found.iptc or photoshop.iptc(file.read(length).removeprefix(photoshop.SIGNATURE)))
    joined = b"".join(profile[number] for number in sorted(profile))
    return replace(found, profile=joined or None), list(dict.fromkeys(notes))


def _jfif_dpi(data: bytes) -> tuple[float, float] | None:
    if not data.startswith(b"JFIF\0") or len(data) < 12 or data[7] not in (1, 2):
        return None
    x, y = struct.unpack(">HH", data[8:12])
    factor = 2.54 if data[7] == 2 else 1
    return (x * factor, y * factor) if x and y else None


def _described(found: Metadata, data: bytes, notes: list[str]) -> Metadata:
    if data.startswith(_EXIF):
        exif, whole = exif_of(data)
        notes += [] if whole else ["exif_corrupt"]
        return replace(found, exif=found.exif or exif)
    if data.startswith(_XMP):
        return replace(found, xmp=data[len(_XMP) :] or None)
    notes += ["xmp_extension_dropped"] if data.startswith(_XMP_MORE) else []
    return found


def pixels(file: BinaryIO, size: int, header: Header) -> tuple[bytes, list[str]]:
    """The file with nothing in it but what makes its pixels, and notes: a decoder sees no more than that."""
    parts = [b"\xff\xd8"]
    for marker, length in _segments(file, size):
        if marker == 0xDA:
            at = file.tell() - 4
            break
        if marker == _COMMENT or (marker in range(0xE0, 0xF0) and marker not in _DECODERS_OWN):
            continue
        parts.append(struct.pack(">BBH", 0xFF, marker, length + 2) + file.read(length))
    file.seek(at)
    data = file.read(_MOST_PER_PIXEL * header.pixels + _SLACK)
    end = _end(data)
    behind = data[end:].strip(b"\0") if end is not None else b""
    notes = [] if not behind else ["secondary_images_dropped" if behind.startswith(SIGNATURE) else "trailing_bytes"]
    return b"".join([*parts, data[:end]]), notes


def _end(data: bytes) -> int | None:
    """Behind the end of the picture whose first scan `data` begins with; None if it has no end."""
    at = 0
    for _ in range(_SEGMENTS):
        if len(data) < at + 4:
            return None
        marker = data[at + 1]
        if marker == 0xD9:
            return at + 2
        at += 2 + (0 if marker in _STANDALONE else int.from_bytes(data[at + 2 : at + 4]))
        found = _IN_SCAN.search(data, at)
        if found is None:
            return None
        at = found.start()
        if data[at + 1] == 0xD9:
            return at + 2
    return None


def wrap(data: bytes, kept: Metadata, exif: bytes | None) -> tuple[bytes, list[str]]:
    """A fresh JPEG with what is kept behind its first segment, and notes on what does not fit."""
    notes = []
    added = []
    for name, marker, start, body in (
        ("exif", _APP1, _EXIF, exif),
        ("xmp", _APP1, _XMP, kept.xmp),
        ("iptc", _APP13, photoshop.SIGNATURE, photoshop.block(kept.iptc) if kept.iptc else None),
    ):
        if body and len(start) + len(body) > _LONGEST:
            notes.append(f"{name}_dropped")
        elif body:
            added.append(struct.pack(">BBH", 0xFF, marker, len(start) + len(body) + 2) + start + body)
    profile = kept.profile or b""
    room = _LONGEST - len(_ICC) - 2
    pieces = [profile[start : start + room] for start in range(0, len(profile), room)]
    if len(pieces) > 255:
        notes.append("profile_dropped")
        pieces = []
    for number, piece in enumerate(pieces, 1):
        added.append(struct.pack(">BBH", 0xFF, _APP2, len(_ICC) + 2 + len(piece) + 2) + _ICC + bytes([number, len(pieces)]) + piece)
    first = 4 + int.from_bytes(data[4:6]) if data[3] == _APP0 else 2
    return data[:first] + b"".join(added) + data[first:], notes
