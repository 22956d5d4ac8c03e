"""Splitting a picture into tiles with a halo, and putting the restored tiles together again.

A tile is the part that is kept; its window is the tile with as much of the halo as the picture has. All coordinates are
pixels of the picture. Up to about 4 Mpx a picture is one tile: the halo is the real cost.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import Fault
from shared.imaging.pixels import Pixels, highest

WHOLE_PIXELS = 4_000_000
TILE = 1024
SMALLEST = 64  # below this a window is nearly all halo

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (1, h, w, 3) in 0..1 → the same


def side(call_pixels: int, halo: int, multiple: int) -> int:
    """The side of a tile whose window, halo and all, has at most `call_pixels`; never more than `TILE`, nor less than `SMALLEST`."""
    margin = -(-halo // multiple) * multiple
    fitting = (math.isqrt(call_pixels) - 2 * margin) // multiple * multiple
    return max(SMALLEST, min(TILE, fitting))


@dataclass(frozen=True)
class Tile:
    """`top … bottom`, `left … right` is kept; `window_…` is what the network sees."""

    top: int
    bottom: int
    left: int
    right: int
    window_top: int
    window_bottom: int
    window_left: int
    window_right: int


def plan(height: int, width: int, halo: int, multiple: int, whole_pixels: int = WHOLE_PIXELS, tile: int = TILE) -> list[Tile]:
    """The tiles of a picture in reading order.

    `tile` and `halo` are rounded up to `multiple`, so that every window's strides lie as they lie in the whole picture.
    """
    padded_height, padded_width, side, margin = (-(-size // multiple) * multiple for size in (height, width, tile, halo))
    if padded_height * padded_width <= whole_pixels:  # a row of pixels is padded to many times its size
        return [Tile(0, height, 0, width, 0, height, 0, width)]
    return [
        Tile(
            top, min(top + side, height), left, min(left + side, width),
            max(0, top - margin), min(top + side + margin, height), max(0, left - margin), min(left + side + margin, width),
        )
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]  # fmt: skip


def apply(run: Run, colour: Pixels, tiles: list[Tile]) -> Iterator[tuple[Tile, Pixels]]:
    """Each tile with its restored pixels (height, width, channels), uint8 or uint16 like `colour`. Float32 exists per tile only.

    A grey picture is fed as three equal channels, and the mean of the three is taken. Raises `Fault("internal")` where the
    network gives what is no number: cast to whole numbers it would be black.
    """
    white = np.float32(highest(colour))
    for tile in tiles:
        window = colour[tile.window_top : tile.window_bottom, tile.window_left : tile.window_right]
        batch = window[np.newaxis].astype(np.float32) / white
        if colour.shape[2] == 1:
            output = run(np.repeat(batch, 3, axis=3))[0].mean(axis=2, keepdims=True)
        else:
            output = run(batch)[0]
        kept = output[
            tile.top - tile.window_top : tile.bottom - tile.window_top,
            tile.left - tile.window_left : tile.right - tile.window_left,
        ]
        if not np.isfinite(kept).all():
            raise Fault("internal", "The network gave values that are no numbers; another model may do better.")
        yield tile, np.round(np.clip(kept, 0, 1) * white).astype(colour.dtype)
