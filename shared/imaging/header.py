"""What a file says of itself before anybody decodes it: format, size, depth, frames. Standard library only.

The API checks an upload with it, the codec checks again before it allocates anything. PNG: ISO/IEC 15948; JPEG: ITU-T T.81.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from shared.errors import Refused

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LONGEST_FILL = 1 << 16  # bytes between two segments of a JPEG
_SEGMENTS = 10_000  # of a JPEG before its first scan; some have hundreds
_CHUNKS = 500_000  # of a PNG; a gigabyte in chunks of 8 kB has 130 000
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_LONGEST_FILL = 1 << 16  # bytes between two segments, which a JPEG may fill up
_SEGMENTS = 10_000  # before the first scan; some photos have hundreds
_CHUNKS = 500_000  # of a PNG; a gigabyte in chunks of 8 kB has 130 000

_KNOWN = {
    b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP", b"%PDF": "PDF", b"8BPS": "Photoshop",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """Width and height are in stored pixels; `mode` is Pillow's name for the channels; `bits` are per channel."""

    format: str
    width: int
    height: int
    mode: str
    bits: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def read(file: BinaryIO, size: int, max_pixels: int) -> Header:
    """The header of a picture of `size` bytes that is restored; `file` is read from its beginning and left anywhere.

    Raises `Refused`: image_empty, unsupported_format, image_truncated, image_corrupt, multiple_frames, too_many_pixels.
    """
    if size == 0:
        raise Refused("image_empty")
    start = file.read(12)
    file.seek(0)
    if start.startswith(PNG):
        header = _png(file, size)
    elif start.startswith(JPEG):
        header = _jpeg(file, size)
    else:
        raise Refused("unsupported_format", _convert(start))
    if header.width == 0 or header.height == 0:
        raise Refused("image_corrupt", "The header gives the picture no pixels.")
    if header.pixels > max_pixels:
        raise Refused("too_many_pixels", f"It has {header.pixels / 1e6:.1f} Mpx; at most {max_pixels / 1e6:g} Mpx are restored.")
    if header.bits != 8:
        raise Refused("unsupported_format", f"It has {header.bits} bits a channel; only 8 are restored so far, and none are thrown away.")
    if header.mode == "CMYK":
        raise Refused("unsupported_format", "It is a CMYK picture; convert it to RGB in an editor first.")
    return header


def _convert(start: bytes) -> str:
    for signature, name in _KNOWN.items():
        if start.startswith(signature):
            return f"It is a {name} file; PNG and JPEG are restored so far: convert it to one of them."
    if start[4:8] == b"ftyp":
        return "It is a HEIC, AVIF or video file; export it as PNG or JPEG."
    return "It is neither PNG nor JPEG; convert it to one of them."


def _png(file: BinaryIO, size: int) -> Header:
    """Walk the chunks to IEND; bytes behind it are fine. Checksums of the small chunks that matter are checked."""
    file.seek(len(PNG))
    name, length = _png_chunk(file, size)
    if name != b"IHDR" or length != 13:
        raise Refused("image_corrupt", "The first chunk is not a header.")
    header = _png_header(_png_data(file, name, length))
    for _ in range(_CHUNKS):
        name, length = _png_chunk(file, size)
        if name == b"IHDR":
            raise Refused("image_corrupt", "It has two headers.")
        if name == b"acTL" and length != 8:
            raise Refused("image_corrupt", "Its animation has an impossible header.")
        if name == b"acTL":
            _png_data(file, name, length)
            raise Refused("multiple_frames", "It is an animated PNG: restore its frames as single pictures.")
        if name == b"IEND":
            return header
        file.seek(length + 4, 1)
    raise Refused("image_corrupt", "It has more chunks than any picture.")


def _png_chunk(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """(name, length of its data) of the next chunk, which lies whole within the file."""
    head = file.read(8)
    if len(head) < 8:
        raise Refused("image_truncated", "The file ends before its last chunk.")
    length, name = struct.unpack(">I4s", head)
    if file.tell() + length + 4 > size:
        raise Refused("image_truncated", f"The file ends within its {name.decode('latin-1')} chunk.")
    return name, length


def _png_data(file: BinaryIO, name: bytes, length: int) -> bytes:
    data = file.read(length)
    (checksum,) = struct.unpack(">I", file.read(4))
    if zlib.crc32(name + data) != checksum:
        raise Refused("image_corrupt", "The header's checksum is wrong.")
    return data


def _png_header(data: bytes) -> Header:
    width, height, bits, colour = struct.unpack(">IIBB", data[:10])
    if colour not in _PNG_MODES or bits not in (1, 2, 4, 8, 16):
        raise Refused("image_corrupt", "The header names a colour type that does not exist.")
    # fewer bits are palette or bi-level pictures: they decode to 8 bits a channel without loss
    return Header("PNG", width, height, _PNG_MODES[colour], max(8, bits))


def _jpeg(file: BinaryIO, size: int) -> Header:
    """Walk the segments from SOI to the first scan, which must lie within the file."""
    file.seek(2)
    header: Header | None = None
    for _ in range(_SEGMENTS):
        marker = _next_marker(file)
        if marker in _STANDALONE:
            continue
        if marker == 0xD9:
            raise Refused("image_truncated", "The file ends before the picture begins.")
        length_bytes = file.read(2)
        if len(length_bytes) < 2:
            raise Refused("image_truncated", "The file ends within its header.")
        (length,) = struct.unpack(">H", length_bytes)
        if length < 2:
            raise Refused("image_corrupt", "A segment has an impossible length.")
        if file.tell() + length - 2 > size:
            raise Refused("image_truncated", "The file ends within its header.")
        if marker in _SOF:
            header = _jpeg_header(file.read(length - 2))
        elif marker == 0xDA:
            if header is None:
                raise Refused("image_corrupt", "The picture begins before its header.")
            file.seek(length - 2, 1)
            _find_end(file)
            return header
        else:
            file.seek(length - 2, 1)
    raise Refused("image_corrupt", "Its header has more segments than any picture.")


def _next_marker(file: BinaryIO) -> int:
    byte = file.read(1)
    for _ in range(_LONGEST_FILL):
        if byte != b"\xff":
            break
        byte = file.read(1)
        if byte not in (b"\xff", b"\x00", b""):
            return byte[0]
    raise Refused("image_truncated" if byte == b"" else "image_corrupt", "A segment of the header is missing or damaged.")


def _jpeg_header(data: bytes) -> Header:
    if len(data) < 6:
        raise Refused("image_corrupt", "The header is too short.")
    bits, height, width, channels = struct.unpack(">BHHB", data[:6])
    if channels not in _JPEG_MODES:
        raise Refused("image_corrupt", f"The header names {channels} channels.")
    return Header("JPEG", width, height, _JPEG_MODES[channels], bits)


def _find_end(file: BinaryIO) -> None:
    """A scan without a single byte is cut off; where it ends too early, only decoding shows."""
    if not file.read(1):
        raise Refused("image_truncated", "The file ends where the picture should begin.")
