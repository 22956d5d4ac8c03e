"""Splitting a picture into tiles with a halo, and putting the restored tiles together again.

A tile is the part that is kept; its window is the tile with as much of the halo as the picture has. All coordinates are
pixels of the picture. Up to about 4 Mpx a picture is one tile: the halo is the real cost.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import Fault
from shared.imaging.pixels import Pixels, highest

WHOLE_PIXELS = 4_000_000
TILE = 1024
SMALLEST = 64  # below this a window is nearly all halo

CELL = 64  # the side of the squares in which holes are looked for
COARSE_PIXELS = 1_000_000  # of a picture that is shrunk to fill what no window sees the edge of

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


def apply(
    run: Run, colour: Pixels, tiles: list[Tile], holes: NDArray[np.bool_] | None = None, strength: float = 1.0
) -> Iterator[tuple[Tile, Pixels]]:
    """Each tile with its restored pixels, of the shape and integer type of `colour`. Float32 exists per tile only.

    Where there are `holes`, the network is told of them, and what is none stays as it is. Tiles whose windows show nothing
    else are filled coarsely, before the others, which then see them as known. A grey picture is fed as three equal channels,
    and the mean of the three is taken. With a `strength` below 1 only so much of the change is made, on float32: nothing is
    rounded twice. Raises `Fault("internal")` where the network gives what is no number: cast to integers
    it would be black.
    """
    peak = np.float32(highest(colour))
    if holes is not None and (blind := [tile for tile in tiles if holes[_window(tile)].all()]):
        call_pixels = max(holes[_window(tile)].size for tile in tiles)
        colour, holes = _coarsely(run, colour, holes, blind, min(call_pixels, COARSE_PIXELS))
    for tile in tiles:
        area, seen = _area(tile), _window(tile)
        if holes is not None and not holes[area].any():
            yield tile, colour[area]
            continue
        output = _called(run, colour[seen].astype(np.float32) / peak, None if holes is None else holes[seen])
        kept = output[
            tile.top - tile.window_top : tile.bottom - tile.window_top,
            tile.left - tile.window_left : tile.right - tile.window_left,
        ]
        pixels = _integers(_mixed(_within(kept), colour[area], strength), colour.dtype)
        yield tile, pixels if holes is None else np.where(holes[area][:, :, np.newaxis], pixels, colour[area])


def _coarsely(run: Run, colour: Pixels, holes: NDArray[np.bool_], blind: list[Tile], call_pixels: int) -> tuple[Pixels, NDArray[np.bool_]]:
    """Copies of both in which the `blind` tiles are filled, and hold no hole any more.

    What fills them is the whole picture, shrunk to `call_pixels` by the means of what is known in squares, filled by one call
    where squares hold nothing known, and enlarged again.
    """
    height, width = holes.shape
    factor = math.ceil(math.sqrt(height * width / call_pixels))
    means, known = _shrunk(colour, ~holes, factor)
    filled = _called(run, means, ~known)
    filled[known] = means[known]
    colour, holes = colour.copy(), holes.copy()
    for tile in blind:
        rows = _enlarged(filled, factor, tile.top, tile.bottom)
        both = _enlarged(rows.swapaxes(0, 1), factor, tile.left, tile.right).swapaxes(0, 1)
        colour[_area(tile)] = _integers(_within(both), colour.dtype)
        holes[_area(tile)] = False
    return colour, holes


def _shrunk(colour: Pixels, known: NDArray[np.bool_], factor: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Means, in 0..1, of what is known in squares of `factor` pixels, 0 where nothing is; and where something is."""
    height, width, channels = colour.shape
    rows, columns = -(-height // factor), -(-width // factor)
    sums, counts = np.zeros((rows, columns, channels), np.float32), np.zeros((rows, columns, 1), np.float32)
    starts = np.arange(0, width, factor)
    for row in range(rows):
        strip = np.s_[row * factor : (row + 1) * factor]
        shown = known[strip][:, :, np.newaxis]
        sums[row] = np.add.reduceat(np.where(shown, colour[strip], 0).sum(axis=0, dtype=np.float64), starts)
        counts[row] = np.add.reduceat(shown.sum(axis=0), starts)
    sums /= np.maximum(counts, 1) * np.float32(highest(colour))
    return sums, counts[:, :, 0] > 0


def _enlarged(coarse: NDArray[np.float32], factor: int, start: int, stop: int) -> NDArray[np.float32]:
    """The rows `start … stop` of what is `factor` times as high, linear between the middles of the rows that are there."""
    at = np.clip((np.arange(start, stop, dtype=np.float32) + np.float32(0.5)) / factor - np.float32(0.5), 0, len(coarse) - 1)
    above = at.astype(int)
    part = (at - above).astype(np.float32)[:, np.newaxis, np.newaxis]
    enlarged: NDArray[np.float32] = coarse[above] * (1 - part) + coarse[np.minimum(above + 1, len(coarse) - 1)] * part
    return enlarged


def _called(run: Run, values: NDArray[np.float32], holes: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """What the network makes of (height, width, 1 or 3) in 0..1: the same shape."""
    masks = [] if holes is None else [holes[np.newaxis, :, :, np.newaxis].astype(np.float32)]
    grey = values.shape[2] == 1
    output: NDArray[np.float32] = run(values[np.newaxis].repeat(3, axis=3) if grey else values[np.newaxis], *masks)[0]
    return output.mean(axis=2, keepdims=True) if grey else output


def _mixed(restored: NDArray[np.float32], before: Pixels, strength: float) -> NDArray[np.float32]:
    """So much of the way from what was there to `restored`, in 0..1."""
    if strength == 1:
        return restored
    kept = before.astype(np.float32) / np.float32(highest(before))
    np.subtract(restored, kept, out=kept)
    kept *= np.float32(1 - strength)  # from this end, so that no rounding of float32 goes beyond `restored`
    restored -= kept
    return restored


def _within(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of what the network gave, cut to 0..1. Raises `Fault("internal")` where it is no number."""
    if not np.isfinite(values).all():
        raise Fault("internal", "The network gave values that are no numbers; another model may do better.")
    return np.clip(values, 0, 1)


def _integers(values: NDArray[np.float32], kind: np.dtype[np.unsignedinteger[Any]]) -> Pixels:
    """Of values in 0..1."""
    return np.round(values * np.float32(np.iinfo(kind).max)).astype(kind)


def _area(tile: Tile) -> tuple[slice, slice]:
    return np.s_[tile.top : tile.bottom, tile.left : tile.right]


def _window(tile: Tile) -> tuple[slice, slice]:
    return np.s_[tile.window_top : tile.window_bottom, tile.window_left : tile.window_right]
