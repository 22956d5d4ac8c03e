"""One step of Muon, as in trainer/optimizers.py, for all kernels of a shape at once, with the moving average of the weights.

A kernel inside the network moves by a matrix whose singular values are all near one (Keller Jordan et al., 2024; scaled as in
Liu et al., 2025). Those next to the pixels, and biases, stay with Adam at half the rate.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from trainer.accelerated.stages import CLIP_NORM, EMA

MOMENTUM = 0.95
ADAM = (0.9, 0.99)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class State(NamedTuple):
    """Where a training stands; lists have one array for each variable of the network."""

    step: Array
    weights: list[Array]
    first: list[Array]  # moment
    second: list[Array]  # moment, of Adam
    average: list[Array]


def begin(weights: Sequence[Array]) -> State:
    """Before the first step."""
    first, second = ([jnp.zeros_like(one) for one in weights] for _ in range(2))
    return State(jnp.zeros((), jnp.int32), list(weights), first, second, [one + 0 for one in weights])


def update(state: State, gradients: Sequence[Array], rate: Array | float, paths: Sequence[str], decay: float) -> State:
    """One step on. `paths` name the variables. Gradients that are no numbers count as zero."""
    step = state.step + 1
    weights, first, second = list(state.weights), list(state.first), list(state.second)
    norm = jnp.sqrt(sum((jnp.sum(one * one) for one in gradients), jnp.zeros(())))
    clipped = [jnp.where(jnp.isfinite(norm), one / jnp.maximum(norm, CLIP_NORM), 0.0) for one in gradients]

    shapes: dict[tuple[int, int], list[int]] = {}
    for index, path in enumerate(paths):
        if weights[index].ndim == 4 and not path.startswith(("head", "tail")):
            matrix = (prod(weights[index].shape[:-1]), weights[index].shape[-1])
            shapes.setdefault(matrix, []).append(index)
        else:
            one, two = ADAM
            first[index] = one * first[index] + (1 - one) * clipped[index]
            second[index] = two * second[index] + (1 - two) * clipped[index] ** 2
            change = (first[index] / (1 - one**step)) / (jnp.sqrt(second[index] / (1 - two**step)) + 1e-8)
            weights[index] = weights[index] - rate * 0.5 * change

    for matrix, members in shapes.items():
        for index in members:
            first[index] = MOMENTUM * first[index] + (1 - MOMENTUM) * clipped[index]
        nesterov = jnp.stack([(MOMENTUM * first[index] + (1 - MOMENTUM) * clipped[index]).reshape(matrix) for index in members])
        changes = orthogonal(nesterov) * (0.2 * max(matrix) ** 0.5)
        for index, change in zip(members, changes, strict=True):
            weights[index] = weights[index] * (1 - rate * decay) - rate * change.reshape(weights[index].shape)

    keep = jnp.minimum(EMA, (1 + step) / (10 + step))
    average = [keep * old + (1 - keep) * new for old, new in zip(state.average, weights, strict=True)]
    return State(step, weights, first, second, average)


def orthogonal(matrices: Array) -> Array:
    """(n, rows, columns) → the same with singular values near one: five steps of Newton and Schulz, in bfloat16."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = jnp.swapaxes(matrices, 1, 2) if tall else matrices
    x = (x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-7)).astype(jnp.bfloat16)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        square = x @ jnp.swapaxes(x, 1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    x = x.astype(jnp.float32)
    return jnp.swapaxes(x, 1, 2) if tall else x
