"""Pixels by libvips: what Pillow would cut to 8 bits, every TIFF, CMYK, and PNG to be written.

Loaders are named, and untrusted ones blocked.
"""

import logging
from functools import partial
from typing import Any

import numpy as np
import pyvips

from shared.errors import Refused
from shared.imaging.containers.described import Header
from shared.imaging.pixels import Pixels

logging.getLogger("pyvips").setLevel(logging.ERROR)  # what libvips warns of is the file's matter; where it fails, it raises
pyvips.block_untrusted_set(True)
pyvips.cache_set_max(0)  # no picture is decoded twice, and each would be kept

_KINDS: dict[str, type[np.uint8] | type[np.uint16]] = {"uchar": np.uint8, "ushort": np.uint16}
_LOADERS = {
    "TIFF": partial(pyvips.Image.tiffload_buffer, unlimited=True),  # a strip may be as long as the picture; `containers/` limits the rest
    "PNG": pyvips.Image.pngload_buffer,
}


def decode(data: bytes | bytearray, header: Header) -> Pixels:
    """(height, width, channels) as stored; palettes are expanded. Raises `Refused`."""
    try:
        image = _LOADERS[header.format](data, access="sequential", fail_on="error")
        if (image.width, image.height) != (header.width, header.height):
            raise Refused("image_corrupt", "It has two headers that contradict each other.")
        if image.format not in _KINDS or np.iinfo(_KINDS[image.format]).bits != header.bits:
            raise Refused("unsupported_format", f"Its pixels are of kind {image.format}; save it with 8 or 16 bits a channel.")
        return _array(image)
    except pyvips.Error as error:
        raise _refusal(error) from error


def _array(image: Any) -> Pixels:
    pixels: Pixels = np.frombuffer(image.write_to_memory(), dtype=_KINDS[image.format])
    return pixels.reshape(image.height, image.width, image.bands)


def _refusal(error: pyvips.Error) -> Exception:
    text = str(error).lower()
    if "out of memory" in text or "unable to allocate" in text:
        return MemoryError()
    return Refused("image_truncated" if "truncat" in text or "not enough data" in text or "end of" in text else "image_corrupt")


def _image(pixels: Pixels, interpretation: str) -> Any:
    height, width, bands = pixels.shape
    kind = "uchar" if pixels.dtype == np.uint8 else "ushort"
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels), width, height, bands, kind)
    return image.copy(interpretation=interpretation)


def encode(pixels: Pixels, colours: int, format_: str, options: dict[str, Any]) -> bytes:
    """(height, width, channels), of which `colours` are grey or RGB, as a file of PNG or TIFF."""
    deep = pixels.dtype == np.uint16
    image = _image(pixels, ("grey16" if deep else "b-w") if colours == 1 else "rgb16" if deep else "srgb")
    saved: bytes = {"TIFF": image.tiffsave_buffer, "PNG": image.pngsave_buffer}[format_](keep="none", **options)
    return saved


def rgb_of(inks: Pixels, profile: bytes | None) -> tuple[Pixels, bytes]:
    """CMYK (height, width, 4), 0 for no ink, as sRGB, by its own profile or else a printer's common one; and the profile of sRGB."""
    depth = 16 if inks.dtype == np.uint16 else 8
    image = _image(inks, "cmyk")
    if profile is not None and profile[16:20] == b"CMYK":
        named = image.copy()
        named.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
        try:
            return _srgb(named, depth)
        except pyvips.Error:  # a damaged profile must not cost the picture
            pass
    return _srgb(image, depth)


def _srgb(image: Any, depth: int) -> tuple[Pixels, bytes]:
    converted = image.icc_transform(
        "srgb", input_profile="cmyk", embedded=True, depth=depth, intent="relative", black_point_compensation=True
    )
    profile: bytes = converted.get("icc-profile-data")
    return _array(converted), profile
