"""Pixels by Pillow: all that has 8 bits a channel, but for TIFF. Formats are named: Pillow is never asked to guess.

Of a PNG or JPEG it sees what makes the pixels and nothing else (`containers/`): texts and tags are none of its business.
"""

import io
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from shared.errors import Refused
from shared.imaging.containers.described import Header
from shared.imaging.pixels import Pixels

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the header, before Pillow sees the file

LOWEST_QUALITY = 90
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # Pillow spreads grey of few bits over 0 … 255, but not the grey that is transparent

# ITU-T T.81 annex K, table K.1: what libjpeg scales by its quality setting
_LUMINANCE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip


def decode(file: BinaryIO, header: Header) -> tuple[NDArray[np.uint8], dict[str, Any], list[str]]:
    """(height, width, channels) as stored, what Pillow writes a JPEG with alike, and notes. Raises `Refused`."""
    try:
        with Image.open(file, formats=[header.format.upper()]) as image:
            if image.size != (header.width, header.height):  # the limit was checked on the one, and Pillow allocates the other
                raise Refused("image_corrupt", "It has two headers that contradict each other.")
            step = _GREY_STEPS.get(str(image.tile[0].args), 1) if image.tile else 1
            image.load()
            if step != 1 and "transparency" in image.info:
                image.info["transparency"] *= step
            options, notes = _sampled(image) if isinstance(image, JpegImagePlugin.JpegImageFile) else ({}, [])
            return _expanded(image, notes), options, notes
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise Refused("image_corrupt") from error
    except (OSError, SyntaxError, ValueError) as error:  # how Pillow says that the data are damaged
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the storage's matter, not the file's
        raise Refused("image_truncated" if "truncated" in str(error) else "image_corrupt") from error


def _expanded(image: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    if image.mode == "P":
        notes.append("palette_expanded")
    if image.mode == "P" or "transparency" in image.info:
        grey = image.mode in ("1", "L")
        image = image.convert(("LA" if grey else "RGBA") if "transparency" in image.info else "RGB")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        raise Refused("unsupported_format", f"Its pixels are of kind {image.mode}; convert it to 8-bit grey or RGB.")
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def _sampled(image: JpegImagePlugin.JpegImageFile) -> tuple[dict[str, Any], list[str]]:
    sampling = JpegImagePlugin.get_sampling(image)
    known = sampling in (0, 1, 2)
    changed = not known and image.mode == "RGB"  # Pillow writes 4:4:4, 4:2:2 and 4:2:0
    return (
        {"quality": _quality(image.quantization), "subsampling": sampling if known else 0},
        ["subsampling_changed"] if changed else [],
    )


def _quality(tables: dict[int, list[int]]) -> int:
    """The lowest of libjpeg's settings whose first table is, as a whole, no coarser than this one; never under 90."""
    if 0 not in tables:
        return LOWEST_QUALITY
    given = sum(tables[0][:64])
    for quality in range(LOWEST_QUALITY, 100):
        if np.clip((_LUMINANCE * (200 - 2 * quality) + 50) // 100, 1, 255).sum() <= given:
            return quality
    return 100


def encode(pixels: Pixels, format_: str, options: dict[str, Any]) -> bytes:
    """(height, width, channels) as a file of PNG, JPEG or WebP."""
    out = io.BytesIO()
    planes = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(planes)).save(out, format=format_, **options)
    return out.getvalue()
