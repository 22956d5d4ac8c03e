"""The optimisers by name. Each is a Keras optimiser whose learning rate is assigned from outside, step by step."""

from collections.abc import Callable
from typing import Any

from shared.trainings.recipe import Optimizer


def build(name: Optimizer, rate: float, weight_decay: float, clip_norm: float) -> Any:
    """A Keras optimiser. `rate` is the learning rate to begin with; `clip_norm` bounds the norm of all gradients together."""
    import keras

    shared = {"global_clipnorm": clip_norm}
    makers: dict[str, Callable[[], Any]] = {
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=weight_decay, **shared),
        "muon": lambda: _muon()(rate, weight_decay=weight_decay, adam_weight_decay=weight_decay, **shared),
    }
    return makers[name]()


def _muon() -> Any:
    """Muon for convolutions: each step moves a kernel by a matrix whose singular values are all near one.

    Keller Jordan et al., “Muon: an optimizer for hidden layers in neural networks”, 2024; scaled to AdamW's step as in Liu
    et al., “Muon is scalable for LLM training”, 2025, `rms_rate`. Keras' own takes matrices only. A kernel (height, width,
    in, out) is here one of (height · width · in, out); the layers next to the pixels, and kernels of one channel, stay with AdamW.
    """
    import keras
    from keras import ops

    class Muon(keras.optimizers.Muon):  # type: ignore[misc]  # Keras has no types
        def _should_use_adamw(self, variable: Any) -> bool:
            return len(variable.shape) != 4 or variable.shape[-1] == 1 or variable.path.startswith(("head", "tail"))

        def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
            self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
            nesterov = ops.add(gradient, self.momentum * m)
            matrix = ops.reshape(nesterov, (-1, variable.shape[-1]))
            update = self.lr_adjust(self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
            self.assign_sub(variable, lr * ops.reshape(update, variable.shape))

    return Muon
