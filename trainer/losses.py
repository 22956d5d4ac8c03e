"""How wrong an output is, as a number to make smaller. Each is a sum over the crops of a part of a batch, to be divided by `count`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.trainings.recipe import Loss

CHARBONNIER = 1e-3  # a quarter of a grey level: below it the loss is round, above it L1 (Charbonnier et al., ICIP 1994)
HALF_A_LEVEL = 0.5 / 255


def summed(name: Loss, error: Any, weight: Any) -> Any:
    """`error` (n, h, w, c), `weight` (n, h, w, 1) → a scalar tensor.

    `psnr` sums 10·log10 of each crop's mean square: every noise level counts the same (Chen et al., NAFNet, 2022). Half a grey
    level is added below the logarithm, or nearly clean crops would outweigh all others.
    """
    import tensorflow as tf

    if name == "l1":
        return tf.reduce_sum(weight * tf.abs(error))
    if name == "l2":
        return tf.reduce_sum(weight * tf.square(error))
    if name == "charbonnier":
        return tf.reduce_sum(weight * tf.sqrt(tf.square(error) + CHARBONNIER**2))
    squares = tf.reduce_sum(weight * tf.square(error), axis=(1, 2, 3))
    known = tf.reduce_sum(weight, axis=(1, 2, 3)) * error.shape[-1]
    return tf.reduce_sum(tf.math.log(squares / tf.maximum(known, 1) + HALF_A_LEVEL**2)) * (10 / np.log(10))


def count(name: Loss, weight: NDArray[np.float32], channels: int = 3) -> float:
    """What the sum over a whole batch is divided by."""
    return float(len(weight)) if name == "psnr" else max(1.0, float(weight.sum(dtype=np.float64)) * channels)
