"""The network that learns: one step of it on TensorFlow, and everything of it that a checkpoint has to hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.trainings.recipe import Recipe
from trainer import losses, networks, optimizers
from trainer.checkpoints import Arrays
from trainer.examples import Examples
from trainer.execution import Described
from trainer.execution.tensorflow import TensorFlowNetwork

Weights = dict[str, NDArray[np.float32]]


class Learner:
    """A network, its optimiser, and a second network whose weights are the average of the first one's.

    What a step does is a function of its examples and its number. Operations are deterministic, for the same number of threads.
    """

    def __init__(self, recipe: Recipe, architecture: str, config: Mapping[str, Any], precision: str, base: Weights | None = None) -> None:
        """`base` are weights to begin with, by name. Imports TensorFlow."""
        import keras
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(recipe.seed)
        self._recipe = recipe
        self._model = networks.build(architecture, config, precision, recipe.dropout)
        self._averaged = networks.build(architecture, config, precision)
        for variable in self._model.weights if base is not None else []:
            variable.assign((base or {})[variable.path])
        for variable, average in self._pairs():
            average.assign(variable)
        self._optimizer = optimizers.build(recipe.optimizer, recipe.rate, recipe.weight_decay, recipe.clip_norm)
        self._optimizer.build(self._model.trainable_variables)
        self._chances = [layer.seed_generator.state for layer in self._model.layers if hasattr(layer, "seed_generator")]
        self._gathered: list[Any] = []
        self._whole = tf.function(self._learn_whole, autograph=False)
        self._part = tf.function(self._learn_part, autograph=False)
        self._end = tf.function(self._end_parts, autograph=False)
        self.exhausted = tf.errors.ResourceExhaustedError
        architecture_of = networks.ARCHITECTURES[architecture]
        parsed = networks.parse(architecture, config)
        self.parameters = sum(int(np.prod(variable.shape)) for variable in self._model.weights)
        self.average = TensorFlowNetwork(
            self._averaged, architecture_of.multiple(parsed), architecture_of.halo(parsed), architecture_of.bytes_per_pixel(parsed),
            Described("tensorflow", precision, "cpu"),
        )  # fmt: skip

    def step(self, examples: Examples, number: int, rate: float, momentum: float, parts: int = 1) -> float:
        """Learn from a batch, in so many parts one after the other; its loss. Raises `self.exhausted`, and is then to be restored."""
        count = losses.count(self._recipe.loss, examples.weight)
        knobs = np.array([count, rate, momentum], np.float32)
        if parts == 1:
            return float(self._whole(examples.inputs, examples.target, examples.weight, knobs, np.array(number, np.int64)))
        if not self._gathered:
            self._gathered = [_zeros_like(variable) for variable in self._model.trainable_variables]
        loss = 0.0
        for part, chosen in enumerate(np.array_split(np.arange(len(examples.target)), parts)):
            if len(chosen):
                inputs = tuple(given[chosen] for given in examples.inputs)
                at = np.array(number * len(examples.target) + part, np.int64)
                loss += float(self._part(inputs, examples.target[chosen], examples.weight[chosen], knobs, at))
        self._end(knobs)
        return loss

    def weights(self) -> Weights:
        """The averaged weights, by name."""
        return {variable.path: np.asarray(variable.value).copy() for variable in self._averaged.weights}

    def state(self) -> Arrays:
        """All that the next step depends on."""
        return {name: np.asarray(variable.value).copy() for name, variable in self._variables().items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """What `state` gave."""
        for name, variable in self._variables().items():
            variable.assign(arrays[name])
        for total in self._gathered:
            total.assign(np.zeros(total.shape, np.float32))

    def _variables(self) -> dict[str, Any]:
        return {
            **{f"model/{variable.path}": variable for variable in self._model.weights},
            **{f"average/{variable.path}": variable for variable in self._averaged.weights},
            **{f"optimizer/{index:05d}": variable for index, variable in enumerate(self._optimizer.variables)},
        }

    def _pairs(self) -> Any:
        return zip(self._model.weights, self._averaged.weights, strict=True)

    def _gradients(self, inputs: Any, target: Any, weight: Any, knobs: Any, number: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        for place, chance in enumerate(self._chances):  # what dropout leaves out depends on the seed, the layer and the step alone
            chance.assign(tf.cast(tf.stack([self._recipe.seed + place, number]), chance.dtype))
        with tf.GradientTape() as tape:
            output = self._model(list(inputs) if len(inputs) > 1 else inputs[0], training=True)
            loss = losses.summed(self._recipe.loss, output - target, weight) / knobs[0]
        return loss, tape.gradient(loss, self._model.trainable_variables)

    def _apply(self, gradients: Any, knobs: Any) -> None:
        self._optimizer.learning_rate = knobs[1]
        self._optimizer.apply(gradients, self._model.trainable_variables)
        for variable, average in self._pairs():
            average.assign(average + (variable - average) * (1 - knobs[2]))

    def _learn_whole(self, inputs: Any, target: Any, weight: Any, knobs: Any, number: Any) -> Any:
        loss, gradients = self._gradients(inputs, target, weight, knobs, number)
        self._apply(gradients, knobs)
        return loss

    def _learn_part(self, inputs: Any, target: Any, weight: Any, knobs: Any, number: Any) -> Any:
        loss, gradients = self._gradients(inputs, target, weight, knobs, number)
        for total, gradient in zip(self._gathered, gradients, strict=True):
            total.assign_add(gradient)
        return loss

    def _end_parts(self, knobs: Any) -> None:
        import tensorflow as tf

        self._apply([tf.identity(total) for total in self._gathered], knobs)
        for total in self._gathered:
            total.assign(tf.zeros_like(total))


def _zeros_like(variable: Any) -> Any:
    import tensorflow as tf

    return tf.Variable(tf.zeros(variable.shape), trainable=False)
