"""Small pictures and files for the tests of shared/imaging."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.imaging import codec
from shared.imaging.codec import Source

PNG = b"\x89PNG\r\n\x1a\n"
PLENTY = 10**9
MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def noise(height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint8]:
    """Uniform noise: what a wrong filter, order or channel cannot leave unchanged."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def gradient(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Smooth, so that JPEG keeps it nearly as it is."""
    rows = np.linspace(20, 230, height)[:, np.newaxis, np.newaxis]
    columns = np.linspace(-15, 15, width)[np.newaxis, :, np.newaxis]
    return np.round(rows + columns + 3 * np.arange(channels)).clip(0, 255).astype(np.uint8)


def image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def saved(picture: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format_, **options)
    return out.getvalue()


def reopened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def decoded(data: bytes, max_pixels: int = PLENTY) -> Source:
    return codec.decode(io.BytesIO(data), len(data), max_pixels)


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def ihdr(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def png(*chunks: bytes) -> bytes:
    return PNG + b"".join(chunks) + chunk(b"IEND")


def resealed(data: bytes) -> bytes:
    """A PNG whose checksums fit again, so that what was changed in it reaches the decoder; anything else as it is."""
    if not data.startswith(PNG):
        return data
    out, at = PNG, len(PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out + data[at:]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def page(*entries: tuple[int, int, int, int], following: int = 0, order: str = "<") -> bytes:
    """A directory of a TIFF, whose values fit their entries: (tag, kind, count, value)."""
    packed = b"".join(
        struct.pack(f"{order}HHI" + ("HH" if kind == 3 else "I"), tag, kind, count, *([value, 0] if kind == 3 else [value]))
        for tag, kind, count, value in sorted(entries)
    )
    return struct.pack(order + "H", len(entries)) + packed + struct.pack(order + "I", following)


GREY = ((256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (279, 4, 1, 2))


def tiff(*changes: tuple[int, int, int, int], following: int = 0, behind: bytes = b"") -> bytes:
    """A grey TIFF of 2 × 1 pixels with some entries changed or added; its directory begins at 10."""
    entries = {entry[0]: entry for entry in (*GREY, *changes)}
    return struct.pack("<2sHI", b"II", 42, 10) + b"\7\7" + page(*entries.values(), following=following) + behind
