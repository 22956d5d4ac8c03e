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

CELL = 64  # the side of the squares in which holes are looked for

Run = Callable[..., NDArray[np.float32]]  # (1, h, w, 3) in 0..1[, (1, h, w, 1): 1 = fill] → the first one's shape


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

    def moved(self, down: int, aside: int) -> "Tile":
        """The same tile further down and to the right."""
        return Tile(
            self.top + down, self.bottom + down, self.left + aside, self.right + aside,
            self.window_top + down, self.window_bottom + down, self.window_left + aside, self.window_right + aside,
        )  # fmt: skip


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


def around(holes: NDArray[np.bool_], halo: int, multiple: int, whole_pixels: int = WHOLE_PIXELS, tile: int = TILE) -> list[Tile]:
    """The tiles that hold the holes of a picture, bool (height, width): what is far from any is in none.

    Holes that lie near each other go together, with `halo` around them, and are not cut while that is no more than
    `whole_pixels`; else they are split as in `plan`.
    """
    cell, margin = (-(-size // multiple) * multiple for size in (CELL, halo))
    height, width = holes.shape
    cells = np.pad(holes, ((0, -height % cell), (0, -width % cell))).reshape(-(-height // cell), cell, -(-width // cell), cell).any((1, 3))
    reach = -(-margin // cell)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(cells, reach), (2 * reach + 1, 2 * reach + 1)).any((2, 3))
    found = []
    for first_row, last_row, first_column, last_column in _rectangles(np.asarray(near)):
        top, left = first_row * cell, first_column * cell
        bottom, right = min(height, last_row * cell), min(width, last_column * cell)
        found += [part.moved(top, left) for part in plan(bottom - top, right - left, halo, multiple, whole_pixels, tile)]
    return [part for part in found if holes[part.top : part.bottom, part.left : part.right].any()]


def _rectangles(cells: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of rectangles that cover what is true; no two overlap or touch."""
    while True:
        found = _groups(cells)
        filled = cells.copy()
        for top, bottom, left, right in found:
            filled[top:bottom, left:right] = True
        if np.array_equal(filled, cells):
            return found
        cells = filled


def _groups(cells: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) around each group of true cells that touch each other, also at a corner."""
    left_over = {(int(row), int(column)) for row, column in np.argwhere(cells)}
    found = []
    while left_over:
        group = [left_over.pop()]
        for row, column in group:  # which grows meanwhile
            beside = {(row + down, column + aside) for down in (-1, 0, 1) for aside in (-1, 0, 1)} & left_over
            left_over -= beside
            group += beside
        rows, columns = zip(*group, strict=True)
        found.append((min(rows), max(rows) + 1, min(columns), max(columns) + 1))
    return sorted(found)


def apply(run: Run, colour: Pixels, tiles: list[Tile], holes: NDArray[np.bool_] | None = None) -> Iterator[tuple[Tile, Pixels]]:
    """Each tile with its restored pixels, of the shape and integer type of `colour`. Float32 exists per tile only.

    Where there are `holes`, the network is told of them, and what is none stays as it is. A grey picture is fed as three
    equal channels, and the mean of the three is taken. Raises `Fault("internal")` where the network gives what is no
    number: cast to integers it would be black.
    """
    peak = np.float32(highest(colour))
    for tile in tiles:
        seen = np.s_[tile.window_top : tile.window_bottom, tile.window_left : tile.window_right]
        batch = colour[seen][np.newaxis].astype(np.float32) / peak
        masks = [] if holes is None else [holes[seen][np.newaxis, :, :, np.newaxis].astype(np.float32)]
        if colour.shape[2] == 1:
            output = run(np.repeat(batch, 3, axis=3), *masks)[0].mean(axis=2, keepdims=True)
        else:
            output = run(batch, *masks)[0]
        kept = output[
            tile.top - tile.window_top : tile.bottom - tile.window_top,
            tile.left - tile.window_left : tile.right - tile.window_left,
        ]
        if not np.isfinite(kept).all():
            raise Fault("internal", "The network gave values that are no numbers; another model may do better.")
        pixels = np.round(np.clip(kept, 0, 1) * peak).astype(colour.dtype)
        area = np.s_[tile.top : tile.bottom, tile.left : tile.right]
        yield tile, pixels if holes is None else np.where(holes[area][:, :, np.newaxis], pixels, colour[area])
