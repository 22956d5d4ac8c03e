"""What is looked for in the pictures of a data set: noise, likeness, and pairs that do not lie on each other.

Pictures are `shared.imaging.pixels.Pixels`: (height, width, 1 or 3), uint8 or uint16, at least `SMALLEST` pixels a side.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from shared.imaging.pixels import Pixels

SMALLEST = 16  # pixels a side: the smallest crop that a training cuts

BLOCK = 16  # pixels a side, of what the noise is estimated in
BLOCKS = 4096  # of a picture, evenly spread
FLATTEST = 5  # per cent of the blocks: where a photo shows nothing but its noise
SHADES = (32, 223)  # of 255, that the mean of a block lies between: beyond, clipping takes half of the noise away
NOISY = 7.0  # σ in levels of 8 bit, from which on a picture is no clean one: docs/decisions/0029 says what photos have

SIDE = 32  # of the small picture that a print is made of
WAVES = 8  # lowest frequencies of each direction in a print
ALIKE = 8  # bits of 64 that the prints of pictures which look the same differ in, at most

CORRELATED = 512  # pixels a side, at most, of what is compared of a pair
SHIFTED = 0.75  # pixels; a shift of one is measured as 0.9 to 1.1
STEADIED = (1.0, 0.01)  # what the spectrum is divided by at least, of its mean: much against noise, little for soft pictures
CERTAIN = 64.0  # how much more moving must change than noise does, as a sum of squares over a variance: four standard deviations


def noise(colour: Pixels) -> float:
    """σ of its noise, in levels of 8 bit: that of its flattest blocks, by Immerkær (1996), who takes edges and slopes for none.

    Of green, which all pictures have and most cameras measure best; noise of the same σ in each channel has it there too.
    """
    plane = colour[:, :, colour.shape[2] // 2]
    step = max(BLOCK // 2, int(np.ceil(np.sqrt(plane.size / BLOCKS))))
    blocks = sliding_window_view(plane, (BLOCK, BLOCK))[::step, ::step].reshape(-1, BLOCK, BLOCK).astype(np.float32)
    if colour.dtype == np.uint16:
        blocks /= 257
    means = blocks.mean((1, 2))
    shaded = (means >= SHADES[0]) & (means <= SHADES[1])
    if shaded.mean() >= 0.05:
        blocks = blocks[shaded]
    down = blocks[:, :-2] - 2 * blocks[:, 1:-1] + blocks[:, 2:]
    both = down[:, :, :-2] - 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return float(np.percentile(np.abs(both).mean((1, 2)), FLATTEST) * np.sqrt(np.pi / 2) / 6)


def fingerprint(colour: Pixels) -> int:
    """64 bits that pictures which look the same have in common, whatever their size, brightness and packing.

    The signs of the lowest cosine waves of a small grey copy, without the mean, against their median (as `phash` of the imagehash package).
    """
    height, width = colour.shape[:2]
    rows, columns = (np.linspace(0, side, SIDE + 1).astype(int) for side in (height, width))
    weights = np.array([0.299, 0.587, 0.114]) if colour.shape[2] == 3 else np.ones(1)
    bands = np.stack([colour[top : max(bottom, top + 1)].mean(0, dtype=np.float64) @ weights for top, bottom in pairwise(rows)])
    small = np.add.reduceat(bands, columns[:-1], axis=1) / np.maximum(np.diff(columns), 1)
    waves = (_COSINES @ small @ _COSINES.T).ravel()[1:]
    bits = np.concatenate([waves > np.median(waves), [False]])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


_COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(WAVES), np.arange(SIDE) + 0.5))


def alike(prints: list[int], look: Callable[[], None]) -> list[int]:
    """For each print the number of its group: prints are of one group that differ in `ALIKE` bits or fewer, or are linked by others.

    `look` is called on the way, and may raise. Time goes with the square: 100 000 take some twenty seconds.
    """
    known, of = np.unique(np.array(prints, np.uint64), return_inverse=True)
    group = np.arange(len(known))
    step = max(1, 2_000_000 // max(len(known), 1))
    for start in range(0, len(known), step):
        look()
        near = np.bitwise_count(known[start : start + step, np.newaxis] ^ known[np.newaxis, start:]) <= ALIKE
        for found in near:  # itself among them
            others = np.unique(group[start:][found])
            if len(others) > 1:
                group[np.isin(group, others)] = others[0]
    return [int(number) for number in group[of]]


def shift(noisy: Pixels, clean: Pixels) -> tuple[float, float] | None:
    """(dx, dy) in pixels by which what `noisy` shows lies further right and down than in `clean`; None where that is less than one.

    By the response that makes the one of the other (a cross-correlation divided by the spectrum of the clean one), in the part of the
    clean picture with the most contrast; and only if the two are nearer to each other when it is undone. Pictures that show too
    little to tell are not shifted.
    """
    side = 1 << int(np.log2(min(CORRELATED, *clean.shape[:2])))
    place = _richest(clean, side)
    one, other = (pixels[place].mean(2, dtype=np.float32) for pixels in (noisy, clean))
    ones, others = (np.fft.rfft2(_windowed(plane)) for plane in (one, other))
    power = np.abs(others) ** 2
    if not power.any():
        return None
    for steadied in STEADIED:
        response = np.fft.irfft2(ones * others.conj() / (power + steadied * power.mean()), s=(side, side))
        row, column = divmod(int(response.argmax()), side)
        dy, dx = _refined(response[:, column], row), _refined(response[row], column)
        if np.hypot(dx, dy) >= SHIFTED and _is_nearer(one, other, _from_the_middle(row, side), _from_the_middle(column, side)):
            return round(dx, 1), round(dy, 1)
    return None


def _is_nearer(one: NDArray[np.float32], other: NDArray[np.float32], down: int, right: int) -> bool:
    """Whether `one` is nearer to `other` moved so than to `other` as it is, by more than noise would make it."""
    rows, columns = (_overlapping(moved, len(one)) for moved in (down, right))
    noisy, as_it_is, moved = one[rows[0], columns[0]], other[rows[0], columns[0]], other[rows[1], columns[1]]
    if noisy.size == 0:
        return False
    difference = moved - as_it_is
    apart, together = np.var(noisy - as_it_is, dtype=np.float64), np.var(noisy - moved, dtype=np.float64)
    changes = np.var(difference, dtype=np.float64)
    return bool(changes * noisy.size > CERTAIN * together and apart - together > changes / 2)


def _overlapping(moved: int, size: int) -> tuple[slice, slice]:
    """What is left of a line when it is moved, and where that came from."""
    return slice(max(moved, 0), size + min(moved, 0)), slice(max(-moved, 0), size + min(-moved, 0))


def _richest(pixels: Pixels, side: int) -> tuple[slice, slice]:
    """Where of the middle and the four quarters the contrast is highest."""
    height, width = pixels.shape[0] - side, pixels.shape[1] - side
    places = [
        (slice(top, top + side), slice(left, left + side))
        for top, left in ((height // 2, width // 2), (0, 0), (0, width), (height, 0), (height, width))
    ]
    return max(places, key=lambda place: float(pixels[place][:, :, -1].std(dtype=np.float64)))


def _windowed(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without its mean, and fading towards its edges, which are no part of the picture."""
    window = np.hanning(len(plane)).astype(np.float32)
    faded: NDArray[np.float32] = (plane - plane.mean()) * window[:, np.newaxis] * window
    return faded


def _refined(line: NDArray[np.float64], peak: int) -> float:
    """Where a parabola through the highest value and its neighbours has its top."""
    size = len(line)
    before, at, after = line[peak - 1], line[peak], line[(peak + 1) % size]
    bend = before - 2 * at + after
    offset = 0.0 if bend == 0 else float((before - after) / (2 * bend))
    return _from_the_middle(peak, size) + offset


def _from_the_middle(place: int, size: int) -> int:
    """Beyond the middle a place counts from the end."""
    return place if place <= size // 2 else place - size
