"""What training does to clean pictures. Every degradation takes a generator and gives the same result for the same seed.

A step is a function of a crop, (height, width, channels) float32 in about 0..1, and a generator; what it gives has the same
shape and is not clipped unless it says so. Steps are done in the order of the recipe. Levels of a recipe are those of 8 bit.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.trainings import recipe
from shared.trainings.recipe import Degradation

Crop = NDArray[np.float32]
Generator = np.random.Generator

BLOCK = 16  # pixels of a JPEG that are packed together, where colours have half the size
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def degrade(
    clean: NDArray[np.float32], steps: Sequence[Degradation], rounded_share: float, grey_share: float, generator: Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, h, w, 3) in 0..1 → (noisy, clean), both float32 of that shape; noisy is not clipped.

    `rounded_share` of the crops are clipped and rounded to 8 bit at the end, as a user's file is. `grey_share` of them are made
    grey first, and have the same noise in all channels: a grey file is fed as three equal channels.
    """
    wanted = greyed(clean, grey_share, generator)
    noisy = np.empty_like(wanted)
    for index, crop in enumerate(wanted):
        planes = crop[:, :, :1] if _is_grey(crop) else crop
        for step in steps:
            planes = apply(step, planes, generator)
        noisy[index] = planes
    rounded = generator.random(len(noisy)) < rounded_share
    noisy[rounded] = to_8_bit(noisy[rounded])
    return noisy, wanted


def greyed(crops: NDArray[np.float32], share: float, generator: Generator) -> NDArray[np.float32]:
    """(n, h, w, 3) of which that share is made grey, three equal channels."""
    grey = generator.random(len(crops)) < share
    made = crops.copy()
    made[grey] = (crops[grey] @ LUMA)[..., np.newaxis]
    return made


def to_8_bit(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clipped to 0..1 and rounded to the levels of 8 bit."""
    return np.round(np.clip(pixels, 0, 1) * 255) / np.float32(255)


def apply(step: Degradation, crop: Crop, generator: Generator) -> Crop:
    """One step of a recipe."""
    return STEPS[step.kind](step, crop, generator)


def _is_grey(crop: Crop) -> bool:
    return bool((crop[:, :, 0] == crop[:, :, 1]).all() and (crop[:, :, 0] == crop[:, :, 2]).all())


def _within(ends: tuple[float, float], generator: Generator) -> float:
    return float(generator.uniform(*ends))


def _normal(crop: Crop, generator: Generator) -> Crop:
    return generator.standard_normal(crop.shape, dtype=np.float32)


def _gaussian(step: recipe.Gaussian, crop: Crop, generator: Generator) -> Crop:
    return crop + _normal(crop, generator) * np.float32(_within(step.sigma, generator) / 255)


def _poisson_gaussian(step: recipe.PoissonGaussian, crop: Crop, generator: Generator) -> Crop:
    """Foi, Trimeche, Katkovnik, Egiazarian: Practical Poissonian-Gaussian noise modeling and fitting, IEEE TIP 17 (2008)."""
    photons = _within(step.photons, generator)
    counted = generator.poisson(np.maximum(crop, 0) * photons).astype(np.float32) / np.float32(photons)
    return counted + _normal(crop, generator) * np.float32(_within(step.sigma, generator) / 255)


def _jpeg(step: recipe.Jpeg, crop: Crop, generator: Generator) -> Crop:
    """Clips and rounds, as packing does. Its blocks begin anywhere, as in a picture that was cut out after it was packed."""
    quality = round(_within(step.quality, generator))
    top, left = generator.integers(0, BLOCK, 2)
    levels = np.round(np.clip(crop, 0, 1) * 255).astype(np.uint8)
    levels = np.pad(levels, ((top, 0), (left, 0), (0, 0)), mode="edge")
    packed = io.BytesIO()
    Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels).save(packed, "JPEG", quality=quality)
    with Image.open(packed, formats=["JPEG"]) as image:
        return np.asarray(image, dtype=np.float32).reshape(levels.shape)[top:, left:] / np.float32(255)


def _salt_pepper(step: recipe.SaltPepper, crop: Crop, generator: Generator) -> Crop:
    """Half of the pixels it hits black, half white, in all channels."""
    chance = generator.random((*crop.shape[:2], 1))
    share = _within(step.share, generator)
    return np.where(chance < share / 2, np.float32(0), np.where(chance < share, np.float32(1), crop))


def _speckle(step: recipe.Speckle, crop: Crop, generator: Generator) -> Crop:
    return crop + crop * _normal(crop, generator) * np.float32(_within(step.sigma, generator))


def _blur(step: recipe.Blur, crop: Crop, generator: Generator) -> Crop:
    """Mirrored at the edges of the crop."""
    import cv2  # those who only evaluate do without

    sigma = _within(step.sigma, generator)
    if sigma < 0.05:  # less than a thousandth of a neighbour
        return crop
    return np.asarray(cv2.GaussianBlur(crop, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)).reshape(crop.shape)


def _grain(step: recipe.Grain, crop: Crop, generator: Generator) -> Crop:
    """The same in all channels for half of the crops: silver has no colour, dyes have."""
    import cv2  # as above

    sigma, radius = _within(step.sigma, generator), _within(step.radius, generator)
    reach = math.ceil(3 * radius)
    height, width, channels = crop.shape
    planes = 1 if generator.random() < 0.5 else channels
    noise = generator.standard_normal((height + 2 * reach, width + 2 * reach, planes), dtype=np.float32)
    taps = cv2.getGaussianKernel(2 * reach + 1, radius, cv2.CV_32F)
    shared = cv2.sepFilter2D(noise, -1, taps, taps).reshape(noise.shape)[reach : reach + height, reach : reach + width]
    return np.asarray(crop + shared * np.float32(sigma / 255 / (taps**2).sum()))


def _mixed(step: recipe.Mixed, crop: Crop, generator: Generator) -> Crop:
    """Some of the others, in the order in which they happen to a picture: lens, film, sensor, transmission, file."""
    others = [one for one in MIXED if one.kind in step.of]
    count = int(generator.integers(step.least, step.most + 1))
    for index in sorted(generator.permutation(len(others))[:count]):
        crop = apply(others[index], crop, generator)
    return crop


MIXED = (recipe.Blur(), recipe.Grain(), recipe.PoissonGaussian(), recipe.Gaussian(), recipe.Speckle(), recipe.SaltPepper(), recipe.Jpeg())

STEPS: Mapping[str, Callable[[Any, Crop, Generator], Crop]] = {
    "gaussian": _gaussian, "poisson-gaussian": _poisson_gaussian, "jpeg": _jpeg, "salt-pepper": _salt_pepper, "speckle": _speckle,
    "blur": _blur, "grain": _grain, "mixed": _mixed,
}  # fmt: skip
