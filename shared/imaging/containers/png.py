"""PNG: ISO/IEC 15948, with the eXIf chunk of PNG 1.5 extensions, and ImageMagick's way to keep IPTC."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from shared.errors import Refused
from shared.imaging.containers import photoshop
from shared.imaging.containers.described import Header, Metadata
from shared.imaging.containers.exif import exif_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_CHANNELS = {"L": 1, "RGB": 3, "P": 1, "LA": 2, "RGBA": 4}
_CHUNKS = 500_000  # a gigabyte in chunks of 8 kB has 130 000
_MOST_INFLATED = 16_000_000  # bytes, of all compressed texts and the profile; profiles of printers have 3 MB
_PIECE = 1 << 16  # bytes unpacked at once
_SLACK = 1 << 16  # bytes by which the data of a picture may be longer than any compressor makes them
_COLOUR = {b"gAMA", b"cHRM", b"sRGB", b"cICP"}
_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_COMPRESSED = {b"iCCP", b"zTXt", b"iTXt"}
_KEPT = _COMPRESSED | _COLOUR | {b"eXIf", b"pHYs"}
_LONGEST_TABLE = 1024  # bytes of a palette or of what is transparent in it
_XMP = b"XML:com.adobe.xmp"
_METRE = 0.0254  # metres in an inch


def read(file: BinaryIO, size: int) -> Header:
    """Walk the chunks to IEND; bytes behind it are fine. Checksums of the small chunks that matter are checked."""
    header: Header | None = None
    left = _MOST_INFLATED
    pixel_bytes = 0
    for name, length in chunks(file, size):
        if header is None:
            if name != b"IHDR" or length != 13:
                raise Refused("image_corrupt", "The first chunk is not a header.")
            header = _header(_checked(file, name, length))
        elif name == b"IHDR":
            raise Refused("image_corrupt", "It has two headers.")
        elif name == b"acTL":
            _refuse_animation(file, length)
        elif name in _COMPRESSED:
            left -= _inflated_bytes(file, name, length, left)
        elif name == b"IDAT":
            pixel_bytes += length
    if header is None:
        raise Refused("image_corrupt", "It has no header.")
    row = header.width * _CHANNELS[header.mode] * (header.bits // 8) + 16  # its filter, and what a flush behind it costs
    if pixel_bytes > 2 * header.height * row + _SLACK:  # fast compressors lengthen noise by an eighth
        raise Refused("image_bomb", "Its data are far longer than its pixels.")
    return header


def _refuse_animation(file: BinaryIO, length: int) -> None:
    if length != 8:
        raise Refused("image_corrupt", "Its animation has an impossible header.")
    _checked(file, b"acTL", length)
    raise Refused("multiple_frames", "It is an animated PNG: restore its frames as single pictures.")


def chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """(name, length of its data) of each chunk up to IEND, all within the file, with `file` at the data."""
    at = len(SIGNATURE)
    for _ in range(_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            raise Refused("image_truncated", "The file ends before its last chunk.")
        length, name = struct.unpack(">I4s", head)
        at += length + 12
        if at > size:
            raise Refused("image_truncated", f"The file ends within its {name.decode('latin-1')} chunk.")
        yield name, length
        if name == b"IEND":
            return
    raise Refused("image_corrupt", "It has more chunks than any picture.")


def _checked(file: BinaryIO, name: bytes, length: int) -> bytes:
    data = file.read(length)
    (checksum,) = struct.unpack(">I", file.read(4))
    if zlib.crc32(name + data) != checksum:
        raise Refused("image_corrupt", "The header's checksum is wrong.")
    return data


def _header(data: bytes) -> Header:
    width, height, bits, colour = struct.unpack(">IIBB", data[:10])
    if colour not in _MODES or bits not in (1, 2, 4, 8, 16):
        raise Refused("image_corrupt", "The header names a colour type that does not exist.")
    # fewer bits are palette or bi-level pictures: they decode to 8 bits a channel without loss
    return Header("PNG", width, height, _MODES[colour], max(8, bits))


def _compressed(name: bytes, data: bytes) -> bytes:
    """The compressed part of a chunk; empty if it has none."""
    rest = data.partition(b"\0")[2]
    if name != b"iTXt":
        return rest[1:]
    return rest[2:].partition(b"\0")[2].partition(b"\0")[2] if rest[:1] == b"\1" else b""


def _inflate(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error:
        return b""


def _inflated_bytes(file: BinaryIO, name: bytes, length: int, left: int) -> int:
    inflated = length if length > left else 0
    rest = b"" if inflated else _compressed(name, file.read(length))
    unpacking = zlib.decompressobj()
    while rest and inflated <= left:  # piece by piece: it is counted, not kept
        try:
            inflated += len(unpacking.decompress(rest, _PIECE))
        except zlib.error:
            break
        rest = unpacking.unconsumed_tail
    if inflated > left:
        raise Refused("image_bomb", f"Its {name.decode('latin-1')} chunk unpacks to far more than a picture says of itself.")
    return inflated


def metadata(file: BinaryIO, size: int) -> tuple[Metadata, list[str]]:
    """What a PNG keeps beside its pixels, and notes; `read` has accepted it before."""
    found, notes = Metadata(), []
    end = 0
    for name, length in chunks(file, size):
        end = file.tell() + length + 4
        if name not in _KEPT or length > _MOST_INFLATED:
            continue
        data = file.read(length)
        if name == b"iCCP":
            found = replace(found, profile=_inflate(_compressed(name, data), _MOST_INFLATED) or None)
        elif name == b"eXIf":
            exif, whole = exif_of(data)
            found = replace(found, exif=exif)
            notes += [] if whole else ["exif_corrupt"]
        elif name == b"pHYs" and length == 9 and data[8] == 1:
            x, y, _ = struct.unpack(">IIB", data)
            found = replace(found, dpi=(x * _METRE, y * _METRE) if x and y else None)
        elif name == b"iTXt" and data.startswith(_XMP + b"\0"):
            plain = data.partition(b"\0")[2][2:].partition(b"\0")[2].partition(b"\0")[2]
            found = replace(found, xmp=(_inflate(plain, _MOST_INFLATED) if data[len(_XMP) + 1] else plain) or None)
        elif name == b"zTXt" and data.startswith(b"Raw profile type iptc\0"):
            found = replace(found, iptc=_raw_profile(_inflate(_compressed(name, data), _MOST_INFLATED)))
        elif name in _COLOUR:
            found = replace(found, colour=(*found.colour, chunk(name, data)))
    file.seek(end)
    notes += ["trailing_bytes"] if file.read(4096).strip(b"\0") else []
    return found, list(dict.fromkeys(notes))


def _raw_profile(text: bytes) -> bytes | None:
    """ImageMagick's: a name, a length and hexadecimal digits, in lines."""
    lines = text.split()
    try:
        return photoshop.iptc(bytes.fromhex(b"".join(lines[2:]).decode("ascii")))
    except ValueError:
        return None


def pixels(file: BinaryIO, size: int) -> bytes:
    """The file with nothing in it but what makes its pixels, each chunk checked: a decoder sees no more than that."""
    parts = [SIGNATURE]
    for name, length in chunks(file, size):
        if name not in _PIXELS:
            continue
        if name != b"IDAT" and length > _LONGEST_TABLE:
            raise Refused("image_corrupt", f"Its {name.decode('latin-1')} chunk is longer than such a chunk can be.")
        data = file.read(length + 4)
        if zlib.crc32(data[:-4], zlib.crc32(name)) != int.from_bytes(data[-4:]):
            raise Refused("image_corrupt", f"The checksum of its {name.decode('latin-1')} chunk is wrong.")
        parts += [struct.pack(">I4s", length, name), data]
    return b"".join(parts)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def wrap(data: bytes, kept: Metadata, exif: bytes | None) -> bytes:
    """A fresh PNG with what is kept instead of what its encoder said."""
    added = []
    if kept.profile:
        added.append(chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(kept.profile)))
    added += [made for made in kept.colour if not kept.profile or made[4:8] != b"sRGB"]
    if kept.dpi:
        added.append(chunk(b"pHYs", struct.pack(">IIB", *(round(side / _METRE) for side in kept.dpi), 1)))
    if exif:
        added.append(chunk(b"eXIf", exif))
    if kept.xmp:
        added.append(chunk(b"iTXt", _XMP + b"\0\0\0\0\0" + kept.xmp))
    if kept.iptc:
        block = photoshop.block(kept.iptc)
        text = b"\niptc\n%8d\n%s\n" % (len(block), block.hex().encode("ascii"))
        added.append(chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text)))
    first = data.index(b"IDAT") - 4
    return data[:33] + b"".join(added) + data[first:]
