"""Damaged files of every format, the same for the same seed.

Each is decoded and encoded again, or refused with a code of pictures; anything else is a fault of ours.
"""

import io
import random

import cv2
import numpy as np
from PIL import Image

from shared.errors import Refused
from shared.imaging import codec
from tests.unit.pictures import decoded, image, noise, resealed, saved

MAX_PIXELS = 10_000
REFUSALS = {
    "image_empty", "unsupported_format", "image_truncated", "image_corrupt", "image_bomb", "multiple_frames", "too_many_pixels",
}  # fmt: skip
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A] = "Lacuna", 6, 300.0
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return exif


def _deep(ending: str, channels: int, *options: int) -> bytes:
    pixels = np.random.default_rng(channels).integers(0, 65_536, (9, 7, channels), dtype=np.uint16)
    return cv2.imencode(ending, pixels, options)[1].tobytes()


_RGB, _RGBA, _GREY = (image(noise(9, 7, channels)) for channels in (3, 4, 1))
_PALETTE, _CMYK = _RGB.quantize(16), Image.fromarray(noise(9, 7, 4), "CMYK")
_KEPT = {"exif": _exif(), "icc_profile": bytes(200), "dpi": (300, 150)}
GOOD: list[bytes] = [
    *(saved(picture, "PNG", **options) for picture, options in ((_RGB, _KEPT), (_RGBA, {}), (_GREY, {"transparency": 5}), (_PALETTE, {}))),
    *(saved(picture, "JPEG", **options) for picture, options in ((_RGB, _KEPT), (_GREY, {}), (_CMYK, {}), (_RGB, {"progressive": True}))),
    saved(_RGB, "MPO", save_all=True, append_images=[_GREY]),
    *(saved(picture, "WEBP", **options) for picture, options in ((_RGB, _KEPT), (_RGBA, {"lossless": True}), (_RGBA, {"quality": 60}))),
    *(saved(picture, "BMP") for picture in (_RGB, _RGBA, _GREY, _PALETTE, _GREY.convert("1"))),
    *(saved(picture, "TIFF", compression=packing) for picture in (_RGB, _RGBA, _GREY) for packing in ("tiff_lzw", "tiff_adobe_deflate")),
    *(saved(picture, "TIFF", **_KEPT) for picture in (_RGB, _PALETTE, _GREY.convert("1"), _CMYK)),
    *(_deep(ending, channels) for ending in (".png", ".tiff") for channels in (1, 3, 4)),
    _deep(".tiff", 3, cv2.IMWRITE_TIFF_COMPRESSION, 1),
]  # fmt: skip


def damaged(seed: int) -> bytes:
    """One of the good files after one to four accidents."""
    chance = random.Random(seed)  # noqa: S311  # the same for the same seed is what is wanted
    data = bytearray(GOOD[seed % len(GOOD)])
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data)) if chance.random() < 0.5 else chance.randrange(min(len(data), 120))
        match chance.choice((0, 0, 0, 1, 1, 2, 2, 2, 3, 4)):
            case 0:
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                data[place] = chance.randrange(256)
            case 2:
                width = chance.choice((1, 2, 4))
                value = chance.choice(_EXTREMES) & (1 << 8 * width) - 1
                data[place : place + width] = value.to_bytes(width, chance.choice(("little", "big")))
            case 3:
                data[place : place + chance.randrange(1, 20)] = b""
            case 4:
                data[place:place] = data[place : place + chance.randrange(1, 60)]
        if not data:
            return b""
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    return resealed(bytes(data)) if chance.random() < 0.8 else bytes(data)


def outcome(data: bytes) -> str:
    """`restored`, or the code it was refused with. Raises whatever else happens."""
    try:
        source = decoded(data, MAX_PIXELS)
    except Refused as error:
        return error.code
    for format_ in ("keep", "png", "jpeg", "tiff", "webp", "bmp"):
        encoded = codec.encode(source.colour, source, format_)
        again = codec.decode(io.BytesIO(encoded.data), len(encoded.data), MAX_PIXELS)
        if again.colour.shape[:2] != source.colour.shape[:2]:
            raise AssertionError(f"as {format_} it has {again.colour.shape}, not {source.colour.shape}")
    return "restored"
