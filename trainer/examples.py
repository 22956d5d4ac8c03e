"""What a network is shown and what it is asked for: made from crops, as the recipe's task and supervision have it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.trainings.recipe import Recipe
from trainer import blind_spots, degradations, masks

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """A batch. `inputs` are one array for each input of the network; the loss counts where `weight` is 1."""

    inputs: tuple[Floats, ...]  # (n, h, w, 3) in about 0..1[, (n, h, w, 1): 1 = to be filled]
    target: Floats  # (n, h, w, 3)
    weight: Floats  # (n, h, w, 1)


def make(recipe: Recipe, given: Floats, wanted: Floats, generator: np.random.Generator) -> Examples:
    """Of crops (n, h, w, 3) in 0..1 and, in pairs, their clean counterparts (else the same array)."""
    everywhere = np.ones((*given.shape[:3], 1), np.float32)
    if recipe.task == "inpaint":
        clean = degradations.greyed(wanted, recipe.grey_share, generator)
        height, width = given.shape[1:3]
        holes = np.stack([masks.for_training(recipe.masks, height, width, generator) for _ in given])[..., np.newaxis]
        return Examples((np.where(holes, np.float32(0), clean), holes.astype(np.float32)), clean, holes.astype(np.float32))
    if recipe.supervision == "noisy":
        noisy = degradations.greyed(given, recipe.grey_share, generator)
        shown, hidden = blind_spots.hide(noisy, generator)
        return Examples((shown,), noisy, hidden)
    if recipe.supervision == "paired":
        both = degradations.greyed(np.stack([given, wanted], axis=1), recipe.grey_share, generator)
        return Examples((np.ascontiguousarray(both[:, 0]),), np.ascontiguousarray(both[:, 1]), everywhere)
    noisy, clean = degradations.degrade(wanted, recipe.degradation, recipe.rounded_share, recipe.grey_share, generator)
    return Examples((noisy,), clean, everywhere)
