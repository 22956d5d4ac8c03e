"""The optimisers by name. Each is a Keras optimiser with a moving average of the weights, which is what a training keeps."""

from collections.abc import Callable
from typing import Any, Literal

Name = Literal["adamw", "muon"]


def build(name: Name, rate: Any, weight_decay: float, clip_norm: float, ema: float) -> Any:
    """A Keras optimiser. `rate` is a learning rate or a schedule; `clip_norm` bounds the norm of all gradients together."""
    import keras

    shared = {"global_clipnorm": clip_norm, "use_ema": True, "ema_momentum": ema, "ema_overwrite_frequency": None}
    makers: dict[str, Callable[[], Any]] = {
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=weight_decay, **shared),
        "muon": lambda: _muon()(rate, weight_decay=weight_decay, adam_weight_decay=weight_decay, **shared),
    }
    return makers[name]()


def _muon() -> Any:
    """Muon for convolutions: each step moves a kernel by a matrix whose singular values are all near one.

    Keller Jordan et al., “Muon: an optimizer for hidden layers in neural networks”, 2024; scaled to AdamW's step as in Liu
    et al., “Muon is scalable for LLM training”, 2025, `rms_rate`. Keras' own takes matrices only. A kernel (height, width,
    in, out) is here one of (height · width · in, out); the layers next to the pixels stay with AdamW.
    """
    import keras
    from keras import ops

    class Muon(keras.optimizers.Muon):  # type: ignore[misc]  # Keras has no types
        def _should_use_adamw(self, variable: Any) -> bool:
            return len(variable.shape) != 4 or variable.path.startswith(("head/", "tail/"))

        def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
            self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
            nesterov = ops.add(gradient, self.momentum * m)
            matrix = ops.reshape(nesterov, (-1, variable.shape[-1]))
            update = self.lr_adjust(self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
            self.assign_sub(variable, lr * ops.reshape(update, variable.shape))

    return Muon
