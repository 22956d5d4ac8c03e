"""What is done to clean crops on the device: blind noise as in trainer/degradations.py, or the wear of cameras, scanners and files."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from trainer.accelerated.jpeg import jpeg
from trainer.accelerated.stages import MOST_SIGMA, Noise, Wear
from trainer.degradations import BLOCK, LUMA

MIDDLE_SIGMAS = (5.0, 30.0)  # levels of 8 bit, as all here
REACH = 3  # pixels that the blur of grain looks to each side


def noisy(key: Array, clean: Array, noise: Noise) -> tuple[Array, Array]:
    """(n, h, w, 3) in 0..1 → (noisy, clean), both of that shape; noisy is not clipped unless rounded."""
    keys = jax.random.split(key, 5)
    each = (clean.shape[0], 1, 1, 1)
    added = jax.random.normal(keys[0], clean.shape, jnp.float32)
    grey = jax.random.uniform(keys[1], each) < noise.grey_share
    clean, added = jnp.where(grey, _grey(clean), clean), jnp.where(grey, added[..., :1], added)
    sigma = jax.random.uniform(keys[2], each, minval=0.0, maxval=MOST_SIGMA)
    low, high = MIDDLE_SIGMAS
    middle = jax.random.uniform(keys[4], each) < noise.sigma_5_to_30_share
    sigma = jnp.where(middle, low + sigma * ((high - low) / MOST_SIGMA), sigma)
    dirty = clean + added * sigma / 255
    rounded = jax.random.uniform(keys[3], each) < noise.rounded_share
    return jnp.where(rounded, _rounded(dirty), dirty), clean


def worn(key: Array, clean: Array, wear: Wear) -> tuple[Array, Array]:
    """(n, side + 16, side + 16, 3) in 0..1 → (worn, clean), both (n, side, side, 3): blocks of a JPEG begin anywhere in them."""
    n, side = clean.shape[:2]
    first, *others = jax.random.split(key, 6)
    keys = iter(others)
    chances: Iterator[Array] = iter(jax.random.uniform(first, (19, n)))

    def uniform(low: float = 0.0, high: float = 1.0) -> Array:
        return low + (high - low) * next(chances)

    def normal(same: Array) -> Array:
        noise = jax.random.normal(next(keys), clean.shape, jnp.float32)
        return jnp.where(_wide(same), noise[..., :1], noise)

    grey = uniform() < wear.grey_share
    clean = jnp.round(jnp.where(_wide(grey), _grey(clean), clean) * 255) / 255

    kind, packed_too, noise_of_two = uniform(), uniform(), uniform()

    def within(low: float, high: float) -> Array:
        return (kind >= low) & (kind < high)

    faint, fine_jpeg, two = within(0.08, 0.14), within(0.14, 0.20), within(0.76, 1)  # and below 0.08 nothing
    gaussian = faint | within(0.20, 0.32) | (two & (noise_of_two < 0.3))
    camera = within(0.32, 0.42) | (two & (noise_of_two >= 0.3) & (noise_of_two < 0.7))
    grainy = within(0.42, 0.50) | (two & (noise_of_two >= 0.7) & (noise_of_two < 0.9))
    speckled = within(0.50, 0.57) | (two & (noise_of_two >= 0.9))
    salted = within(0.57, 0.64) | (two & (packed_too < 0.1))
    packed = fine_jpeg | within(0.64, 0.76) | (two & (packed_too < 0.85))

    sigma = jnp.where(faint, uniform(0, 3), uniform(0, MOST_SIGMA)) * gaussian * jnp.where(two, 0.7, 1.0)
    photons, read = jnp.exp(uniform(np.log(30.0), np.log(1000.0))), uniform(0, 10)  # at white; levels
    grain, speckle, salt = uniform(0, 30) * grainy, uniform(0, 0.3) * speckled, uniform(0, 0.1) * salted
    quality = jnp.where(fine_jpeg, uniform(88, 100), jnp.where(two, uniform(40, 98), uniform(20, 95)))

    x = clean
    x = x + normal(grey) * _wide(camera) * jnp.sqrt(jnp.maximum(x, 0) / _wide(photons) + _wide(read / 255) ** 2)
    x = x + normal(grey) * _wide(sigma / 255)
    x = x + _blurred(normal(grey | (uniform() < 0.6)), uniform(0.4, 1.3)) * _wide(grain / 255)
    x = x + x * normal(grey) * _wide(speckle)
    hit = jax.random.uniform(next(keys), (n, side, side, 1))
    x = jnp.where(hit < _wide(salt / 2), 0.0, jnp.where(hit < _wide(salt), 1.0, x))
    x = _rounded(x)
    x = jnp.where(_wide(packed), jpeg(x, jnp.round(quality), uniform() < 0.75), x)

    tops, lefts = (jnp.floor(uniform(0, BLOCK)).astype(jnp.int32) for _ in range(2))
    rows, columns = (jnp.arange(side - BLOCK) + begin[:, None] for begin in (tops, lefts))
    inner = np.s_[jnp.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return x[inner], clean[inner]


def levels(clean: Array) -> dict[str, Array]:
    """What held-out pictures are measured under that learn blind noise: name → (n, h, w, 3), not clipped."""
    noise = jax.random.normal(jax.random.key(7), clean.shape) / 255
    return {f"σ {sigma}": clean + noise * sigma for sigma in (15, 25, 50)}


def wears(clean: Array) -> dict[str, Array]:
    """What held-out pictures are measured under that learn wear: name → (n, h, w, 3), rounded to 8 bit; h and w multiples of 16."""
    n = clean.shape[0]
    noise = jax.random.normal(jax.random.key(7), clean.shape)
    struck = jax.random.uniform(jax.random.key(8), (*clean.shape[:3], 1)) < 0.01
    grain = _blurred(noise[..., :1] * jnp.ones(3), jnp.full((n,), 0.8))
    shown = {
        "clean": clean,
        "σ 2": clean + noise * 2 / 255,
        "σ 25": clean + noise * 25 / 255,
        "camera": clean + noise * jnp.sqrt(clean / 100 + (3 / 255) ** 2),
        "speckle": clean + 0.15 * clean * noise,
        "grain": clean + grain * 15 / 255,
        "pepper": jnp.where(struck, 0.0, clean),
    }
    shown = {name: _rounded(x) for name, x in shown.items()}
    given = {f"JPEG {quality}": (clean, quality) for quality in (95, 80, 50, 30)} | {"camera, JPEG 70": (shown["camera"], 70)}
    qualities = jnp.repeat(jnp.array([float(quality) for _, quality in given.values()]), n)
    packed = jpeg(jnp.concatenate([x for x, _ in given.values()]), qualities, jnp.ones(qualities.shape, bool))
    return shown | dict(zip(given, packed.reshape(len(given), *clean.shape), strict=True))


def _wide(values: Array) -> Array:
    return values[:, None, None, None]


def _grey(pixels: Array) -> Array:
    return (pixels @ LUMA)[..., None]


def _rounded(pixels: Array) -> Array:
    return jnp.round(jnp.clip(pixels, 0, 1) * 255) / 255


def _blurred(noise: Array, radius: Array) -> Array:
    """Noise that neighbours share, of standard deviation one again. `radius` (n,) is the σ of a Gaussian, in pixels."""
    offsets = np.arange(-REACH, REACH + 1)
    taps = jnp.exp(-0.5 * (offsets[None] / radius[:, None]) ** 2)
    taps = taps / jnp.sqrt((taps**2).sum(1, keepdims=True))
    for axis in (1, 2):
        shifted = [jnp.roll(noise, int(offset), axis) * _wide(taps[:, place]) for place, offset in enumerate(offsets)]
        noise = sum(shifted, jnp.zeros_like(noise))
    return noise
