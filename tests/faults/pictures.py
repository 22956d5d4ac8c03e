"""Pictures that tell the network in their first pixel what it is to do with them: take a while, or be poison."""

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SLOW, POISON = 254, 255  # the first pixel's red
PACE_SECONDS = 0.02  # its green counts so many in a slow picture
POISONS = ("segfault", "killed", "loop", "hang")  # its green in poison
HEIGHT, WIDTH = 48, 64
TALL, NARROW = 8200, 500  # more than `tiles.WHOLE_PIXELS`


@functools.cache
def slow(seconds: float, seed: int = 0) -> bytes:
    """A PNG that the network takes so long for, up to five seconds."""
    return _png(seed, (SLOW, round(seconds / PACE_SECONDS), 0))


@functools.cache
def poison(what: str, seed: int = 0) -> bytes:
    """A PNG that the network does not survive: it crashes, is killed as when memory is out, never ends, or holds the GIL for ever."""
    return _png(seed, (POISON, POISONS.index(what), 0))


@functools.cache
def tiled(seconds: float) -> bytes:
    """A PNG of nine tiles, for each of which the network takes so long."""
    pixels = np.full((TALL, NARROW, 3), (SLOW, round(seconds / PACE_SECONDS), 0), dtype=np.uint8)  # each tile's first pixel is alike
    return _encoded(pixels)


def told(batch: NDArray[np.float32]) -> tuple[float, str | None]:
    """What the network (n, height, width, channels) in 0..1 is told: seconds to take, and a poison."""
    red, green, _ = (round(float(value) * 255) for value in batch[0, 0, 0])
    if red == POISON:
        return 0.0, POISONS[green]
    return (green * PACE_SECONDS if red == SLOW else 0.0), None


def _png(seed: int, first: tuple[int, int, int]) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 250, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[0, 0] = first
    return _encoded(pixels)


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
