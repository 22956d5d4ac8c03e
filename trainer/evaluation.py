"""The quality protocol: how good a network is, in figures that compare with the published tables.

A picture is read as 8-bit RGB and divided by 255; Gaussian noise from `RandomState(0)`, seeded anew for each picture, is
added and not clipped; the network is called directly; its output is clipped and rounded to 8 bit and compared with the
original. With `rounded`, the noisy picture is clipped and rounded to 8 bit before the network, as a user's file is.

Filling: the mask of a picture is drawn from a generator seeded with its place in the folder, in order of name. The
network is called directly on picture and mask; figures are those of the whole picture and those of the hole alone.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.imaging import metrics
from trainer.datasets import Picture
from trainer.masks import Drawer

Run = Callable[..., NDArray[np.float32]]  # (n, h, w, 3) in 0..1[, (n, h, w, 1): 1 = fill] → the first one's shape, any h and w


def add_noise(clean: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    """uint8 → float32 of the same shape in units of 0..1, noisy, not clipped. `sigma` is in grey levels of 0..255."""
    noise = np.random.RandomState(0).normal(0, sigma / 255, clean.shape)
    return (clean / 255 + noise).astype(np.float32)


def to_8bit(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 → 0..255, clipped and rounded."""
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def evaluate(network: Run, pictures: Iterable[Picture], sigma: float, rounded: bool = False) -> list[dict[str, Any]]:
    """A row for each picture: its name, `output` and `input` figures (`input` is the noisy picture as 8 bit)."""
    rows = []
    for picture in pictures:
        noisy = add_noise(picture.pixels, sigma)
        if rounded:
            noisy = to_8bit(noisy).astype(np.float32) / np.float32(255)
        output = to_8bit(network(noisy[np.newaxis])[0])
        rows.append({
            "name": picture.name,
            "output": vars(metrics.compare(output, picture.pixels)),
            "input": vars(metrics.compare(to_8bit(noisy), picture.pixels)),
        })  # fmt: skip
    return rows


def evaluate_filling(network: Run, pictures: Iterable[Picture], draw: Drawer) -> list[dict[str, Any]]:
    """A row for each picture: its name, the share of it that is hole, `output` figures of the whole and `hole` figures.

    A picture whose mask came out empty or full has no row.
    """
    rows = []
    for index, picture in enumerate(pictures):
        height, width = picture.pixels.shape[:2]
        mask = draw(height, width, np.random.default_rng(index))
        if not mask.any() or mask.all():
            continue
        given = picture.pixels / np.float32(255)
        given[mask] = 0
        output = to_8bit(network(given[np.newaxis], mask[np.newaxis, :, :, np.newaxis].astype(np.float32))[0])
        output[~mask] = picture.pixels[~mask]
        rows.append({
            "name": picture.name,
            "share": float(mask.mean()),
            "output": vars(metrics.compare(output, picture.pixels)),
            "hole": vars(metrics.compare_holes(output, picture.pixels, mask)),
        })  # fmt: skip
    return rows


def mean(rows: list[dict[str, Any]], of: str) -> dict[str, float]:
    """The mean over pictures of each figure of `output`, `input` or `hole`, of those that have it."""
    return {figure: float(np.nanmean([row[of][figure] for row in rows])) for figure in rows[0][of]}
