"""Learning from noisy pictures alone: a few pixels are hidden from the network, which has to guess them from those around.

Krull, Buchholz, Jug: Noise2Void, learning denoising from single noisy images, CVPR 2019. What can be guessed of a pixel from
its surroundings is the picture; noise that is independent from pixel to pixel cannot be. A hidden pixel holds what another of
the 5 × 5 around it holds, in all channels, and the loss is taken at hidden pixels only.
"""

import numpy as np
from numpy.typing import NDArray

RADIUS = 2
SHARE = 0.02  # of the pixels


def hide(crops: NDArray[np.float32], generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, h, w, c) → (the same with pixels hidden, where: (n, h, w, 1), 1 = hidden). At least one pixel of each crop is."""
    count, height, width, _ = crops.shape
    hidden = generator.random((count, height, width)) < SHARE
    hidden[np.arange(count), generator.integers(0, height, count), generator.integers(0, width, count)] = True
    which, row, column = np.nonzero(hidden)
    window = 2 * RADIUS + 1
    other = generator.integers(0, window * window - 1, len(which))
    other += other >= window * window // 2  # any but the middle
    # mirrored at the edges; where that leads back to the pixel itself, it goes to the next one
    below, right = _mirrored(row + other // window - RADIUS, height), _mirrored(column + other % window - RADIUS, width)
    itself = (below == row) & (right == column)
    right[itself] = np.where(column[itself] + 1 < width, column[itself] + 1, column[itself] - 1)
    shown = crops.copy()
    shown[which, row, column] = crops[which, below, right]
    return shown, hidden[..., np.newaxis].astype(np.float32)


def _mirrored(place: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.asarray(np.clip(size - 1 - np.abs(size - 1 - np.abs(place)), 0, size - 1))
