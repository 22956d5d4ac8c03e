"""Holes drawn on the device. The kinds are those of trainer/masks.py, as distances to points and segments instead of OpenCV's lines."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import Array

from trainer.accelerated import pictures
from trainer.accelerated.pictures import Pool
from trainer.masks import OPACITY

Uniform = Callable[..., Array]  # a shape → as many numbers in 0..1

BOXES, TURNS, SCRATCHES, FILMS = 4, 8, 6, 3  # at most, in one crop


def draw(key: Array, damage: Pool | None, count: int, side: int) -> Array:
    """Masks float32 (count, side, side, 1), 1 = fill: pixels, boxes, strokes, scratches, film damage if given, as many of each."""
    first, second = jax.random.split(key)
    drawn = kinds(first, damage, count, side)
    chosen = jnp.floor(jax.random.uniform(second, (count,)) * len(drawn)).astype(jnp.int32)
    masks = jnp.stack(list(drawn.values()))  # all are drawn for every crop: on a device that is cheaper than to choose first
    return masks[chosen, jnp.arange(count)].astype(jnp.float32)[..., None]


def kinds(key: Array, damage: Pool | None, count: int, side: int) -> dict[str, Array]:
    """Kind → bool (count, side, side)."""
    keys = iter(jax.random.split(key, 30))

    def uniform(*shape: int) -> Array:
        return jax.random.uniform(next(keys), (count, *shape))

    drawn = {
        "pixels": uniform(side, side) < 0.1 + 0.85 * uniform(1, 1),
        "boxes": _boxes(uniform, side),
        "strokes": _strokes(uniform, side),
        "scratches": _scratches(uniform, side),
    }
    return drawn if damage is None else drawn | {"film": _film(keys, damage, count, side)}


def _boxes(uniform: Uniform, side: int) -> Array:
    """One to four, smaller where they are many."""
    many = jnp.floor(uniform(1) * BOXES)
    size = 4 + uniform(BOXES, 2) * side * 0.4 / (1 + many[:, :, None]) ** 0.5
    corner = uniform(BOXES, 2) * side - size / 2
    low, high = corner[:, :, None, None], (corner + size)[:, :, None, None]
    return _first((((_grid(side) >= low) & (_grid(side) < high)).all(-1)), many + 1)


def _strokes(uniform: Uniform, side: int) -> Array:
    """A brush of 1 to 13 pixels radius, that turns as it goes, up to eight times."""
    pen, radius = uniform(2) * side, 1 + uniform(1) ** 2 * 12
    angle = uniform(1) * 6.283 + jnp.cumsum((uniform(TURNS) - 0.5) * 3, 1)
    moves = (uniform(TURNS) * 0.4 * side)[..., None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    starts, ends = [], []
    for turn in range(TURNS):
        starts.append(pen)
        ends.append(pen + moves[:, turn])
        pen = jnp.clip(ends[-1], 0, side)
    drawn = _segments(side, jnp.stack(starts, 1), jnp.stack(ends, 1), radius)
    return _first(drawn, 1 + jnp.floor(uniform(1) * TURNS))


def _scratches(uniform: Uniform, side: int) -> Array:
    """One to six, of 0.4 to 2.2 pixels radius, nearly along one side."""
    x, lean = uniform(SCRATCHES) * side, (uniform(SCRATCHES) - 0.5) * 0.3 * side
    top, bottom = (uniform(SCRATCHES) - 0.3) * side, (uniform(SCRATCHES) + 0.3) * side
    drawn = _segments(side, jnp.stack([top, x], -1), jnp.stack([bottom, x + lean], -1), 0.4 + uniform(SCRATCHES) * 1.8)
    mask = _first(drawn, 1 + jnp.floor(uniform(1) * SCRATCHES))
    return jnp.where(uniform(1, 1) < 0.5, mask, mask.transpose(0, 2, 1))


def _film(keys: Iterator[Array], damage: Pool, count: int, side: int) -> Array:
    """Three pictures of damage, one over the other."""
    mask = jnp.zeros((count, side, side), bool)
    for _ in range(FILMS):
        mask |= pictures.cut(damage, next(keys), count, side)[..., 0] > OPACITY
    return mask


def _first(drawn: Array, many: Array) -> Array:
    """Of what was drawn, bool (n, most, side, side), so many, (n, 1), in one mask."""
    return (drawn & (jnp.arange(drawn.shape[1]) < many)[:, :, None, None]).any(1)


def _segments(side: int, start: Array, end: Array, radius: Array) -> Array:
    """Which pixels lie within `radius`, (n, most or 1), of segments (n, most, 2) → bool (n, most, side, side)."""
    along = (end - start)[:, :, None, None]
    from_start = _grid(side) - start[:, :, None, None]
    share = (from_start * along).sum(-1) / jnp.maximum((along * along).sum(-1), 1e-6)
    away = from_start - jnp.clip(share, 0, 1)[..., None] * along
    return (away * away).sum(-1) <= (radius * radius)[:, :, None, None]


def _grid(side: int) -> Array:
    """(side, side, 2): row and column of each pixel."""
    rows, columns = jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij")
    return jnp.stack([rows, columns], -1).astype(jnp.float32)
