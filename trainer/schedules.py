"""What changes as a training goes on: its learning rate and the momentum of its average, as functions of the step alone."""

import math

from shared.trainings.recipe import Recipe

START = 0.01  # of the learning rate: where the warm-up begins
END = 0.001  # of it: where the cosine ends
WARM_UP_SHARE = 0.1  # of a training: the longest warm-up


def learning_rate(recipe: Recipe, step: int, total: int | None) -> float:
    """Of step `step` (the first is 0) of `total`; None while that is not known, which is in the warm-up or shortly after."""
    warm_up = recipe.warmup_steps if total is None else min(recipe.warmup_steps, int(total * WARM_UP_SHARE))
    if step < warm_up:
        return recipe.rate * (START + (1 - START) * step / warm_up)
    if recipe.schedule == "constant" or total is None:
        return recipe.rate
    gone = min(1.0, (step - warm_up) / max(1, total - warm_up))
    return recipe.rate * (END + (1 - END) * (1 + math.cos(math.pi * gone)) / 2)


def momentum(recipe: Recipe, step: int) -> float:
    """Of the average of the weights after step `step`: less at the beginning, when the weights are not worth remembering."""
    return min(recipe.ema, (1 + step) / (10 + step))
