"""A training on the device: crops, damage, loss and step are one compiled program; the host only says the rate, and looks now and then."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from trainer.accelerated import degrading, holes, muon, pictures
from trainer.accelerated.material import Material
from trainer.accelerated.muon import State
from trainer.accelerated.stages import Noise, Stage
from trainer.losses import HALF_A_LEVEL

TELL_S, KEEP_S = 15, 60
AHEAD = 6  # steps that the device has been given before the host waits for one
FAR = 100_000  # steps: after going back other crops are drawn than those before
LEAST_PSNR = 5.0  # dB: below it weights are lost, though they may still be numbers

Weights = dict[str, NDArray[np.float32]]
Restore = Callable[..., Array]  # what the network is given → what it makes of it


class Progress(NamedTuple):
    """How far a training has come."""

    step: int
    elapsed_s: float


def train(
    stage: Stage,
    model: Any,
    material: Material,
    seconds: float,
    tell: Callable[[dict[str, Any]], None],
    keep: Callable[[Weights, Progress], None],
) -> None:
    """Train `model` for so long after it was compiled. `tell` hears how it goes, `keep` is given the average so far and at the end."""
    paths = [variable.path for variable in model.variables]

    def restore(weights: list[Array], given: Any) -> Array:
        made: Array = model.stateless_call(weights, [], given)[0]
        return made

    def advance(state: State, material: Material, rate: Array, key: Array) -> tuple[State, Array]:
        def loss_of(weights: list[Array]) -> Array:
            return loss(stage, lambda given: restore(weights, given), material, jax.random.fold_in(key, state.step))

        value, gradients = jax.value_and_grad(loss_of)(state.weights)
        return muon.update(state, gradients, rate, paths, stage.weight_decay), value

    compiled = jax.jit(advance, donate_argnums=0)
    measured = jax.jit(lambda weights, material: psnrs(stage, lambda given: restore(weights, given), material))
    key = jax.random.key(stage.seed)

    def step(state: State, rate: float) -> tuple[State, Array]:
        made: tuple[State, Array] = compiled(state, material, rate, key)
        return made

    def measure(state: State) -> dict[str, float]:
        return {name: round(float(value), 3) for name, value in measured(state.average, material).items()}

    def give(state: State, progress: Progress) -> None:
        average = [np.asarray(one) for one in state.average]
        if all(np.isfinite(one).all() for one in average):
            keep(dict(zip(paths, average, strict=True)), progress)

    _follow(
        stage, muon.begin([jnp.asarray(variable.value, jnp.float32) for variable in model.variables]), seconds, step, measure, tell, give
    )


def loss(stage: Stage, restore: Restore, material: Material, key: Array) -> Array:
    """Of one batch: how wrong the network is, a scalar."""
    first, second = jax.random.split(key)
    clean = pictures.light(pictures.cut(material.pool, first, stage.batch, stage.patch + stage.margin))
    if stage.damage is None:
        mask = holes.draw(second, material.damage, stage.batch, stage.patch)
        error = (restore([clean, mask]) - clean) * mask
        missing = jnp.maximum(mask.sum((1, 2, 3)) * 3, 30)  # a hole of a pixel or two is not to weigh more than ten pixels
        return jnp.mean(jnp.abs(error).sum((1, 2, 3)) / missing + 4 * (error**2).sum((1, 2, 3)) / missing)
    if isinstance(stage.damage, Noise):
        given, wanted = degrading.noisy(second, clean, stage.damage)
    else:
        given, wanted = degrading.worn(second, clean, stage.damage)
    mse = jnp.mean((restore(given) - wanted) ** 2, (1, 2, 3))
    return jnp.mean(jnp.log(mse + HALF_A_LEVEL**2)) * (10 / math.log(10))


def psnrs(stage: Stage, restore: Restore, material: Material) -> dict[str, Array]:
    """Of the held-out pictures, 8-bit output: the mean by what they were given as, in dB; of holes that of the hole alone."""
    clean = pictures.light(material.held_out)

    def psnr(made: Array, counted: Array) -> Array:
        error = (jnp.round(jnp.clip(made, 0, 1) * 255) / 255 - clean) ** 2 * counted
        mse = error.sum((1, 2, 3)) / jnp.maximum(counted.sum((1, 2, 3)) * 3, 1)
        return jnp.mean(-10 * jnp.log10(mse + 1e-8))  # 80 dB where nothing differs

    if stage.damage is None:
        mask = holes.draw(jax.random.key(7), material.damage, *clean.shape[:2])
        return {"holes": psnr(restore([clean, mask]), mask)}
    shown = degrading.levels(clean) if isinstance(stage.damage, Noise) else degrading.wears(clean)
    everywhere = jnp.ones_like(clean[..., :1])
    figures = jax.lax.map(lambda given: psnr(restore(given), everywhere), jnp.stack(list(shown.values())))  # one after the other
    return dict(zip(shown, figures, strict=True))


def _follow(
    stage: Stage,
    state: State,
    seconds: float,
    step: Callable[[State, float], tuple[State, Array]],
    measure: Callable[[State], Mapping[str, float]],
    tell: Callable[[dict[str, Any]], None],
    give: Callable[[State, Progress], None],
) -> None:
    began = time.monotonic()
    measure(state)
    state, first = step(state, 0.0)  # compiles, and leaves the weights as they are
    first.block_until_ready()
    tell({"compiled_s": round(time.monotonic() - began, 1)})

    began = time.monotonic()
    good, factor = _copied(state), 1.0
    steps, told, kept = 0, 0.0, 0.0
    waiting: deque[Array] = deque()
    losses: list[float] = []
    while (elapsed := time.monotonic() - began) < seconds:
        state, value = step(state, factor * stage.rate(steps, elapsed / seconds))
        steps += 1
        waiting.append(value)
        if len(waiting) > AHEAD:
            losses.append(float(waiting.popleft()))
        if elapsed - told < TELL_S:
            continue
        told = elapsed
        if _looked(state, Progress(steps, elapsed), [*losses, *map(float, waiting)], measure, tell):
            good = _copied(state)
            if elapsed - kept >= KEEP_S:
                kept = elapsed
                give(good, Progress(steps, elapsed))
        else:
            state, factor = _copied(good)._replace(step=good.step + FAR), factor / 2
            tell({"went_back": True, "rate_factor": factor})
        losses.clear()
        waiting.clear()
    progress = Progress(steps, time.monotonic() - began)
    fine = _looked(state, progress, [*losses, *map(float, waiting)], measure, tell)
    give(state if fine else good, progress)


def _looked(
    state: State,
    progress: Progress,
    losses: list[float],
    measure: Callable[[State], Mapping[str, float]],
    tell: Callable[[dict[str, Any]], None],
) -> bool:
    """Tell where it stands; whether that is somewhere to go on from."""
    mean, held_out = float(np.mean(losses)), measure(state)
    tell({"elapsed_s": round(progress.elapsed_s, 1), "step": progress.step, "loss": round(mean, 4), "held_out": held_out})
    figures = np.array([mean, *held_out.values()])
    return bool(np.isfinite(figures).all() and figures[1:].mean() > LEAST_PSNR)


def _copied(state: State) -> State:
    """The step gives its input's memory to its output: what is to be kept is copied."""
    copied: State = jax.tree.map(lambda one: one + 0, state)
    return copied
