"""How good a network is on pictures it does not learn from, at the end of each epoch: the same crops each time."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.imaging import metrics
from shared.trainings.recipe import Recipe
from trainer import datasets, examples, losses
from trainer.datasets import Picture
from trainer.examples import Examples, Floats

Run = Callable[..., Floats]  # the inputs of a network, n of each → what it gives

MOST_CROPS, MOST_SIDE, CROPS_A_PICTURE, LEAST_CROPS = 32, 160, 4, 8
HELD_OUT = 1  # sets the chance of held-out crops apart from that of batches
PSNR_CAP = 60.0  # dB: of a crop that came out as it should to the last level
FIGURES = ("psnr", "ssim", "mse", "rmse", "mae")
SAMPLES, SAMPLE_CROPS = 12, 4  # strips of a training, crops of a strip


def held_out(recipe: Recipe, pictures: Sequence[Picture]) -> list[Examples]:
    """One crop each, at most `MOST_SIDE` high and wide, a function of the recipe and the pictures alone."""
    count = min(MOST_CROPS, max(LEAST_CROPS, CROPS_A_PICTURE * len(pictures))) if pictures else 0
    made = []
    for index in range(count):
        generator = np.random.default_rng([recipe.seed, index, HELD_OUT])
        picture = pictures[index % len(pictures)]
        height, width = (min(side, MOST_SIDE) for side in picture.pixels.shape[:2])
        top = int(generator.integers(0, picture.pixels.shape[0] - height + 1))
        left = int(generator.integers(0, picture.pixels.shape[1] - width + 1))
        given, wanted = (
            datasets.light(pixels[top : top + height, left : left + width])[np.newaxis] for pixels in (picture.pixels, picture.clean)
        )
        made.append(examples.make(recipe, given, wanted, generator))
    return made


def measure(recipe: Recipe, run: Run, crops: Sequence[Examples]) -> dict[str, float | None]:
    """The mean loss, and the mean of each figure as 8 bit; those are None where nobody knows what a crop should look like."""
    found: dict[str, list[float]] = {name: [] for name in ("loss", *FIGURES)}
    for crop in crops:
        output = run(*crop.inputs)
        found["loss"].append(float(losses.summed(recipe.loss, output - crop.target, crop.weight)) / losses.count(recipe.loss, crop.weight))
        if recipe.supervision == "noisy":
            continue
        quality = metrics.compare(to_8_bit(output[0]), to_8_bit(crop.target[0]))
        for name in FIGURES:
            value = getattr(quality, name)
            found[name].append(min(value, PSNR_CAP) if name == "psnr" else value)
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else None


def to_8_bit(pixels: Floats) -> NDArray[np.uint8]:
    """0..1 → 0..255, clipped and rounded."""
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def sampled(epoch: int, epochs: int | None) -> bool:
    """Whether an epoch, the first is 1, leaves a strip: at most `SAMPLES` of a training do, the last among them."""
    return epochs is not None and (epoch == epochs or epoch % -(-epochs // (SAMPLES - 1)) == 0)


def write_strip(path: Path, recipe: Recipe, run: Run, crops: Sequence[Examples]) -> None:
    """A PNG: a row for each of a few crops, what was given, what came of it and, where it is known, what it should be."""
    rows: list[Any] = []
    for crop in crops[:SAMPLE_CROPS]:
        if recipe.supervision == "noisy":
            parts = [crop.target[0], run(crop.target)[0]]  # nothing is hidden here
        else:
            parts = [crop.inputs[0][0], run(*crop.inputs)[0], crop.target[0]]
        rows.append(np.concatenate([to_8_bit(part) for part in parts], axis=1))
    width = max(row.shape[1] for row in rows)
    whole = np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    Image.fromarray(whole).save(part, "PNG")
    part.replace(path)
