"""BMP: Microsoft's BITMAPINFOHEADER to BITMAPV5HEADER, and OS/2's BITMAPCOREHEADER."""

import struct
from typing import BinaryIO

from shared.errors import Refused
from shared.imaging.containers.described import Header, Metadata

SIGNATURE = b"BM"

_HEADERS = {12, 40, 52, 56, 64, 108, 124}
_PLAIN, _RLE8, _RLE4, _FIELDS, _ALPHA_FIELDS = 0, 1, 2, 3, 6
_EMBEDDED = int.from_bytes(b"MBED")  # the colour space of a header with a profile
_SRGB = int.from_bytes(b"sRGB")
_LONGEST_PROFILE = 64_000_000  # bytes
_METRE = 0.0254  # metres in an inch


def read(file: BinaryIO, size: int) -> Header:
    """The two headers; the rows must lie within the file, where their length is known before decoding."""
    width, height, bits, packing, first, header = _fields(file, size)
    kinds = {1: {_PLAIN}, 4: {_PLAIN, _RLE4}, 8: {_PLAIN, _RLE8}, 16: {_PLAIN, _FIELDS}, 24: {_PLAIN}, 32: {_PLAIN, _FIELDS, _ALPHA_FIELDS}}
    if packing in {4, 5}:
        raise Refused("unsupported_format", "It is a BMP that holds a JPEG or PNG for printers; save it as a plain BMP.")
    if packing not in kinds.get(bits, ()):
        raise Refused("image_corrupt", f"Its header names {bits} bits a pixel, packed in a way that does not exist.")
    if packing not in {_RLE8, _RLE4} and first + (width * bits + 31) // 32 * 4 * height > size:
        raise Refused("image_truncated", "The file ends before its last row.")
    if bits <= 8:
        return Header("BMP", width, height, "L" if _is_grey(file, header, bits, first) else "P", 8)
    has_alpha = bits == 32 and packing in {_FIELDS, _ALPHA_FIELDS} and _alpha_mask(file, header, packing) != 0
    return Header("BMP", width, height, "RGBA" if has_alpha else "RGB", 8)


def _fields(file: BinaryIO, size: int) -> tuple[int, int, int, int, int, int]:
    """(width, height, bits a pixel, packing, place of the rows, length of the second header)."""
    file.seek(0)
    data = file.read(34)
    if len(data) < 26:
        raise Refused("image_truncated", "The file ends within its header.")
    first, header = struct.unpack_from("<II", data, 10)
    if header not in _HEADERS:
        raise Refused("image_corrupt", "Its header has a length that does not exist.")
    if size < 14 + header:
        raise Refused("image_truncated", "The file ends within its header.")
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return width, height, bits, _PLAIN, first, header
    width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    if width < 0:
        raise Refused("image_corrupt", "Its header names a negative width.")
    return width, abs(height), bits, packing, first, header


def _is_grey(file: BinaryIO, header: int, bits: int, first: int) -> bool:
    """Whether the palette is a ramp of grey, which decodes to grey: as Pillow decides it."""
    width = 3 if header == 12 else 4
    used = 0
    if header != 12:
        file.seek(46)
        used = int.from_bytes(file.read(4), "little")
    count = used or 1 << bits
    ramp = (0, 255) if count == 2 else range(count)
    file.seek(14 + header)
    palette = file.read(min(count, 256) * width)
    return count <= 256 and all(palette[place * width : place * width + 3] == bytes([grey]) * 3 for place, grey in enumerate(ramp))


def _alpha_mask(file: BinaryIO, header: int, packing: int) -> int:
    if header < 56 and packing != _ALPHA_FIELDS:
        return 0
    file.seek(14 + 52)
    return int.from_bytes(file.read(4).ljust(4, b"\0"), "little")


def metadata(file: BinaryIO, size: int) -> tuple[Metadata, list[str]]:
    """The resolution and the profile of a BMP; `read` has accepted it before."""
    header = _fields(file, size)[-1]
    if header == 12:
        return Metadata(), []
    file.seek(14)
    data = file.read(header)
    x, y = struct.unpack_from("<ii", data, 24)
    profile = None
    if header == 124 and struct.unpack_from("<I", data, 56)[0] == _EMBEDDED:
        place, length = struct.unpack_from("<II", data, 112)
        if 14 + place + length <= size and length <= _LONGEST_PROFILE:
            file.seek(14 + place)
            profile = file.read(length) or None
    return Metadata(profile=profile, dpi=(x * _METRE, y * _METRE) if x > 0 and y > 0 else None), []


def written(rows: bytes, width: int, height: int, channels: int, kept: Metadata) -> bytes:
    """A BMP of `rows` from the bottom up, each padded to four bytes: grey, BGR or BGRA."""
    x, y = (round(side / _METRE) for side in kept.dpi or (0, 0))
    x, y = (side if side < 1 << 31 else 0 for side in (x, y))
    new = channels == 4 or kept.profile is not None
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256)) if channels == 1 else b""
    length = 124 if new else 40
    first = 14 + length + len(palette)
    profile = kept.profile or b""
    fields = struct.pack(
        "<IiiHHIIiiII", length, width, height, 1, channels * 8, _FIELDS if channels == 4 else _PLAIN, len(rows), x, y, len(palette) // 4, 0
    )
    if new:
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if channels == 4 else (0, 0, 0, 0)
        place = first - 14 + len(rows) if profile else 0
        fields += struct.pack("<4II36s3IIIII", *masks, _EMBEDDED if profile else _SRGB, b"", 0, 0, 0, 4, place, len(profile), 0)
    head = struct.pack("<2sIHHI", b"BM", first + len(rows) + len(profile), 0, 0, first)
    return b"".join([head, fields, palette, rows, profile])
