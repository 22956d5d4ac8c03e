"""The training loop: batches in, weights out. It knows nothing of what a network looks like or where pictures come from.

The batch of step k is a function of the seed and k alone, and a checkpoint holds weights, optimiser, moving average and
step; so a training that was interrupted goes on exactly where it stopped.
"""

import itertools
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import Fault, Refused
from trainer import artifact, networks, optimizers
from trainer.degradations import BlindGaussian

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]  # (noisy, clean), each (n, h, w, 3)


class Recipe(BaseModel):
    """Everything that decides how a training goes. Defaults make the shipped denoiser's network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["dncnn", "unet"] = "unet"  # those that take one picture
    config: dict[str, Any] = {}
    steps: int = Field(44_000, ge=1, le=10_000_000)
    batch: int = Field(8, ge=1, le=1024)
    patch: int = Field(96, ge=16, le=1024, description="side of a crop in pixels")
    half_share: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    sigma_low: float = Field(0.0, ge=0, le=255, allow_inf_nan=False)
    sigma_high: float = Field(55.0, ge=0, le=255, allow_inf_nan=False)
    rounded_share: float = Field(0.5, ge=0, le=1, allow_inf_nan=False)
    grey_share: float = Field(0.2, ge=0, le=1, allow_inf_nan=False)
    loss: Literal["l1", "l2", "psnr"] = "l1"
    optimizer: optimizers.Name = "adamw"
    learning_rate: float = Field(1e-3, gt=0, le=1, allow_inf_nan=False)
    warmup_steps: int = Field(500, ge=0)
    weight_decay: float = Field(1e-4, ge=0, le=1, allow_inf_nan=False)
    ema: float = Field(0.999, ge=0, lt=1, allow_inf_nan=False)
    clip_norm: float = Field(1.0, gt=0, allow_inf_nan=False)
    validation_share: float = Field(0.05, ge=0, le=0.5, allow_inf_nan=False)
    seed: int = Field(0, ge=0, lt=2**32)
    precision: Literal["float32", "bfloat16"] = "float32"

    def degradation(self) -> BlindGaussian:
        """The noise this recipe trains with."""
        return BlindGaussian(self.sigma_low, self.sigma_high, self.rounded_share, self.grey_share)


@dataclass
class Progress:
    """What is told every `every` steps: the step just done, the mean loss since the last telling, steps per second."""

    step: int
    loss: float
    steps_per_s: float
    weights: Callable[[], dict[str, NDArray[np.float32]]] = field(repr=False)


def train(
    recipe: Recipe,
    draw: Callable[[int, np.random.Generator], NDArray[np.uint8]],
    checkpoint: Path,
    tell: Callable[[Progress], None],
    every: int = 500,
    base: Mapping[str, NDArray[np.float32]] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Train to the recipe's end, from `checkpoint` if it is there, and return the averaged weights by name.

    A new training starts from the weights of `base`, if given, by name.
    `draw(count, generator)` gives clean crops. Raises `Fault("training_diverged")` when the loss is no number.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(recipe.seed)
    model = networks.build(recipe.architecture, recipe.config, recipe.precision)
    if base is not None:
        for variable in model.variables:
            variable.assign(base[variable.path])
    optimizer = _optimizer(recipe)
    optimizer.build(model.trainable_variables)
    state = [*model.variables, *optimizer.variables]
    first = _restore(checkpoint, recipe, state)

    @tf.function  # type: ignore[untyped-decorator]
    def step(noisy: Any, clean: Any) -> Any:
        with tf.GradientTape() as tape:
            error = model(noisy, training=True) - clean
            loss = _loss(recipe.loss, error)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    def averaged() -> dict[str, NDArray[np.float32]]:
        averages = optimizer._model_variables_moving_average  # the only handle Keras 3.15 gives to its moving average
        return {variable.path: np.asarray(average.value).copy() for variable, average in zip(model.variables, averages, strict=True)}

    losses: list[Any] = []
    since = time.monotonic()
    for index, (noisy, clean) in enumerate(_batches(recipe, draw, first), first):
        losses.append(step(noisy, clean))
        done = index + 1
        if done % every and done != recipe.steps:
            continue
        loss = float(np.mean([float(value) for value in losses]))
        if not np.isfinite(loss):
            raise Fault("training_diverged", f"The loss was not a number by step {done}; try a smaller learning rate.")
        tell(Progress(done, loss, len(losses) / (time.monotonic() - since), averaged))
        losses, since = [], time.monotonic()
        _save(checkpoint, recipe, done, state)
    return averaged()


def _loss(name: str, error: Any) -> Any:
    """`psnr` is the mean over crops of 10·log10(MSE): every noise level counts the same (Chen et al., NAFNet, 2022).

    Half a grey level is added below the logarithm, or nearly clean crops would outweigh all others.
    """
    import tensorflow as tf

    if name == "l1":
        return tf.reduce_mean(tf.abs(error))
    if name == "l2":
        return tf.reduce_mean(tf.square(error))
    mse = tf.reduce_mean(tf.square(error), axis=(1, 2, 3))
    return tf.reduce_mean(tf.math.log(mse + (0.5 / 255) ** 2)) * (10 / np.log(10))


def _optimizer(recipe: Recipe) -> Any:
    import keras

    warmup = min(recipe.warmup_steps, recipe.steps // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 100, max(1, recipe.steps - warmup), alpha=0.001,
        warmup_target=recipe.learning_rate, warmup_steps=warmup,
    )  # fmt: skip
    return optimizers.build(recipe.optimizer, rate, recipe.weight_decay, recipe.clip_norm, recipe.ema)


def _batches(recipe: Recipe, draw: Callable[[int, np.random.Generator], NDArray[np.uint8]], first: int) -> Iterator[Batch]:
    """The batches of steps `first` to the last, made a few ahead by a thread of its own."""
    degradation = recipe.degradation()
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=8)
    stopped = threading.Event()

    def make() -> None:
        item: Batch | BaseException | None = None
        try:
            for index in itertools.takewhile(lambda index: not stopped.is_set(), range(first, recipe.steps)):
                generator = np.random.default_rng([recipe.seed, index])
                ready.put(degradation.apply(draw(recipe.batch, generator), generator))
        except BaseException as error:  # noqa: BLE001 # whatever it is belongs to the thread that trains
            item = error
        ready.put(item)

    threading.Thread(target=make, name="batches", daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        while not ready.empty():
            ready.get_nowait()


def _save(checkpoint: Path, recipe: Recipe, step: int, state: list[Any]) -> None:
    arrays = {f"{index:05d}": np.asarray(variable.value) for index, variable in enumerate(state)}
    artifact.write_tensors(checkpoint, arrays, {"step": str(step), "recipe": recipe.model_dump_json()})


def _restore(checkpoint: Path, recipe: Recipe, state: list[Any]) -> int:
    """Load the checkpoint if there is one; the step to go on with."""
    if not checkpoint.exists():
        return 0
    arrays, metadata = artifact.read_tensors(checkpoint)
    if json.loads(metadata["recipe"]) != json.loads(recipe.model_dump_json()):
        raise Refused("invalid_field", f"{checkpoint} belongs to another recipe: remove it, or train into another folder.")
    for index, variable in enumerate(state):
        variable.assign(arrays[f"{index:05d}"])
    print(f"going on from step {metadata['step']}", file=sys.stderr)
    return int(metadata["step"])
