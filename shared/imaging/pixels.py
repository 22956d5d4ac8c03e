"""Pixels as arrays: (height, width, channels) of uint8 or uint16, 0 for black and the type's highest value for white."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.unsignedinteger[Any]]


def highest(pixels: Pixels) -> int:
    """What stands for white, or for opaque."""
    return int(np.iinfo(pixels.dtype).max)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """The rows as a viewer displays them: TIFF 6.0, tag Orientation. In one piece, and itself where nothing was to be done."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels[:, ::-1] if orientation in {2, 3, 6, 7} else pixels)


def unassociated(colour: Pixels, alpha: Pixels) -> Pixels:
    """Colour that was multiplied by its alpha, divided by it again."""
    white = np.float32(highest(colour))
    divided = np.empty_like(colour)
    for row, (shades, cover) in enumerate(zip(colour, alpha, strict=True)):  # float32 of one row at a time
        divided[row] = np.round(np.minimum(shades * (white / np.maximum(cover, 1))[:, np.newaxis], white))
    return divided


def in_eight_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """The same, in steps of 1/255."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    reduced = np.empty(pixels.shape, np.uint8)
    for row, shades in enumerate(pixels):  # float32 of one row at a time
        reduced[row] = np.round(shades / np.float32(257))
    return reduced
