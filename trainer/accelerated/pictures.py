"""Pictures in the device's memory, and the crops that are cut out of them there."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from PIL import Image

from shared.errors import Refused
from trainer.accelerated.stages import SCALES

Pixels = NDArray[np.uint8]  # (height, width, channels)

MOST_PIXELS = 2**31 - 1  # where a pixel lies is an int32


class Pool(NamedTuple):
    """Pictures as one row of pixels, and where each of them lies."""

    pixels: Array  # uint8 (all pixels, channels)
    base: Array  # int32 (pictures,): where each begins
    height: Array  # int32 (pictures,)
    width: Array  # int32 (pictures,)
    share: Array  # float32 (pictures,), cumulated: of the crops


def scaled(pictures: Sequence[Pixels]) -> list[list[Pixels]]:
    """The pictures at each of `SCALES`, (height, width, 3); made smaller by Lanczos."""

    def one(picture: Pixels, scale: float) -> Pixels:
        height, width = picture.shape[:2]
        size = (round(width * scale), round(height * scale))
        return picture if scale == 1 else np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))

    with ThreadPoolExecutor() as threads:
        return [list(threads.map(one, pictures, [scale] * len(pictures))) for scale in SCALES]


def pooled(groups: Sequence[Sequence[Pixels]], shares: Sequence[float], side: int) -> Pool:
    """Onto the device. Each group has its share of the crops, within it pictures are drawn in proportion to their pixels.

    Pictures smaller than `side` are left out. Raises `Refused` if none is left, or if they are too many.
    """
    chosen, weights = [], []
    for group, share in zip(groups, shares, strict=True):
        fitting = [picture for picture in group if min(picture.shape[:2]) >= side]
        area = sum(_area(picture) for picture in fitting)
        chosen += fitting
        weights += [share * _area(picture) / area for picture in fitting]
    if not chosen:
        raise Refused("invalid_field", f"No picture is at least {side} pixels wide and high. Choose a smaller --patch.")
    areas = [_area(picture) for picture in chosen]
    if sum(areas) > MOST_PIXELS:
        raise Refused("invalid_field", f"With smaller copies these are {sum(areas) / 1e6:.0f} Mpx, more than 2147. Name fewer folders.")
    return Pool(
        jnp.asarray(np.concatenate([picture.reshape(-1, picture.shape[2]) for picture in chosen])),
        jnp.asarray(np.cumsum([0, *areas[:-1]]), jnp.int32),
        jnp.asarray([picture.shape[0] for picture in chosen], jnp.int32),
        jnp.asarray([picture.shape[1] for picture in chosen], jnp.int32),
        jnp.asarray(np.cumsum(weights) / sum(weights), jnp.float32),
    )


def cut(pool: Pool, key: Array, count: int, side: int) -> Array:
    """`count` crops, turned and mirrored at random: uint8 (count, side, side, channels)."""
    first, second = jax.random.split(key)
    drawn = jnp.searchsorted(pool.share, jax.random.uniform(first, (count,)), side="right")
    which = jnp.clip(drawn, 0, pool.share.shape[0] - 1)
    place = _placed(second, pool.base[which], pool.height[which], pool.width[which], side)
    return pool.pixels.at[place].get(mode="promise_in_bounds")


def light(pixels: Array) -> Array:
    """uint8 → float32 in 0..1."""
    return pixels.astype(jnp.float32) / 255


def _placed(key: Array, base: Array, height: Array, width: Array, side: int) -> Array:
    """Where each pixel of the crops lies, int32 (count, side, side). Base, height and width (count,) are those of their pictures."""
    chance = jax.random.uniform(key, (5, base.shape[0]))
    top = jnp.floor(chance[0] * (height - side + 1)).astype(jnp.int32)
    left = jnp.floor(chance[1] * (width - side + 1)).astype(jnp.int32)
    rows, columns = jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij")

    def either(drawn: Array, one: Array, other: Array) -> Array:
        return jnp.where((drawn > 0.5)[:, None, None], one, other)

    down, across = either(chance[2], rows, columns), either(chance[2], columns, rows)
    down, across = either(chance[3], side - 1 - down, down), either(chance[4], side - 1 - across, across)
    return base[:, None, None] + (top[:, None, None] + down) * width[:, None, None] + left[:, None, None] + across


def _area(picture: Pixels) -> int:
    return int(picture.shape[0] * picture.shape[1])
