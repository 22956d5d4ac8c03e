"""What packing as JPEG does to a picture, without its bytes: the same to within a level or two as libjpeg's (tests/unit)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# ITU-T T.81, tables K.1 and K.2; libjpeg scales them by the quality
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMINANCE = np.full((8, 8), 99, np.float32)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

DCT = np.array(
    [[(0.125 if u == 0 else 0.25) ** 0.5 * np.cos((2 * x + 1) * u * np.pi / 16) for x in range(8)] for u in range(8)], np.float32
)


def jpeg(pixels: Array, quality: Array, halved: Array) -> Array:
    """(n, h, w, 3) in 0..1 → the same after JPEG, h and w multiples of 16.

    `quality` (n,) is 1 to 100; `halved` (n,): whether colours have half the width and height.
    """
    levels = jnp.round(jnp.clip(pixels, 0, 1) * 255)
    red, green, blue = levels[..., 0], levels[..., 1], levels[..., 2]
    y = jnp.round(0.299 * red + 0.587 * green + 0.114 * blue) - 128
    y = jnp.round(_coded(y, LUMINANCE, quality)) + 128

    def colour(plane: Array) -> Array:
        n, h, w = plane.shape
        small = jnp.round(plane.reshape(n, h // 2, 2, w // 2, 2).mean((2, 4)))
        large = _doubled(_coded(small, CHROMINANCE, quality))
        return jnp.round(jnp.where(halved[:, None, None], large, _coded(plane, CHROMINANCE, quality)))

    cb = colour(jnp.round(-0.168736 * red - 0.331264 * green + 0.5 * blue))
    cr = colour(jnp.round(0.5 * red - 0.418688 * green - 0.081312 * blue))
    made = jnp.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    return jnp.round(jnp.clip(made, 0, 255)) / 255


def _coded(plane: Array, table: np.ndarray[tuple[int, int], np.dtype[np.float32]], quality: Array) -> Array:
    """(n, h, w) in levels around zero, through the DCT, its rounding, and back."""
    n, h, w = plane.shape
    scale = jnp.floor(jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality))
    steps = jnp.clip(jnp.floor((table[None] * scale[:, None, None] + 50) / 100), 1, 255)[:, None, :, None, :]
    blocks = plane.reshape(n, h // 8, 8, w // 8, 8)
    exact = jax.lax.Precision.HIGHEST  # a GPU would multiply with ten bits
    waves = jnp.einsum("ux,nixjy,vy->niujv", DCT, blocks, DCT, precision=exact)
    waves = jnp.round(waves / steps) * steps
    return jnp.einsum("ux,niujv,vy->nixjy", DCT, waves, DCT, precision=exact).reshape(n, h, w)


def _doubled(plane: Array) -> Array:
    """(n, h, w) → (n, 2 h, 2 w), each new pixel three parts of the nearest and one of the next, as libjpeg does it."""

    def along(x: Array) -> Array:
        before, after = jnp.concatenate([x[:, :1], x[:, :-1]], 1), jnp.concatenate([x[:, 1:], x[:, -1:]], 1)
        return jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], 2).reshape(x.shape[0], -1, x.shape[2])

    return along(along(plane).swapaxes(1, 2)).swapaxes(1, 2)
