"""What a training has on the device: pictures to learn from, film damage, and what it is measured with."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from shared.errors import Refused
from shared.trainings.recipe import Recipe
from trainer import datasets, evaluation
from trainer.accelerated import pictures
from trainer.accelerated.pictures import Pixels, Pool
from trainer.accelerated.stages import Stage
from trainer.datasets import Picture

MOST_SIDE = 256  # pixels, of a held-out crop


class Material(NamedTuple):
    """All of it is given to the compiled program, which would otherwise hold it as constants."""

    pool: Pool
    damage: Pool | None  # pictures of film damage, one channel
    held_out: Array  # uint8 (n, side, side, 3)


def gather(stage: Stage, found: Sequence[Picture], films: Sequence[Picture]) -> Material:
    """Held out are those that `python -m trainer train` holds out. Raises `Refused` if no picture is as large as a crop."""
    distinct = {picture.sha256: picture for picture in found}
    learnt, held_out = datasets.split([distinct[sha256] for sha256 in sorted(distinct)], Recipe().validation_share)
    groups = pictures.scaled([datasets.as_8bit(picture.pixels) for picture in learnt])
    pool = pictures.pooled(groups, stage.scale_shares, stage.patch + stage.margin)
    damages = [_grey(film) for film in films]
    damage = pictures.pooled([damages], (1.0,), stage.patch) if damages else None
    return Material(pool, damage, jnp.asarray(_corners(stage, held_out, damages)))


def _grey(film: Picture) -> Pixels:
    """(height, width, 1)."""
    return np.asarray(Image.fromarray(datasets.as_8bit(film.pixels)).convert("L"))[:, :, np.newaxis]


def _corners(stage: Stage, held_out: Sequence[Picture], damages: Sequence[Pixels]) -> Pixels:
    """(n, side, side, 3), as large as the smallest allows."""
    large = [picture.pixels for picture in evaluation.chosen(held_out) if min(picture.pixels.shape[:2]) >= stage.patch]
    if not large:
        raise Refused("invalid_field", f"No picture that is held out is {stage.patch} pixels wide and high. Choose a smaller --patch.")
    sides = [min(one.shape[:2]) for one in (*large, *damages)]
    side = min(MOST_SIDE, *(one for one in sides if one >= stage.patch)) // stage.multiple * stage.multiple
    return np.stack([datasets.as_8bit(one[:side, :side]) for one in large])
