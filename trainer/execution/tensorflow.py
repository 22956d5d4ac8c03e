"""TensorFlow: one traced function of unknown height and width. Never `model.predict` (seven times slower), never XLA on CPUs."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import artifact, networks
from trainer.execution import Described


class TensorFlowNetwork:
    """A network traced once for any batch, height and width."""

    def __init__(self, model: Any, multiple: int, halo: int) -> None:
        import tensorflow as tf

        self.multiple = multiple
        self.halo = halo
        self._call = tf.function(
            lambda batch: model(batch, training=False),
            autograph=False,
            input_signature=[tf.TensorSpec((None, None, None, model.inputs[0].shape[-1]), tf.float32)],
        )

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Network.run`: padded by reflection to the next multiple, and cropped again."""
        height, width = batch.shape[1:3]
        padded = pad(batch, self.multiple)
        output = self._call(padded).numpy()
        return np.asarray(output[:, :height, :width], dtype=np.float32)


class TensorFlowExecutor:
    """Keras on TensorFlow, in float32: right on every CPU. Imports TensorFlow when it loads the first network."""

    def load(self, folder: Path) -> TensorFlowNetwork:
        """See `Executor.load`."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import, or TensorFlow chatters
        described, model = artifact.load_network(folder)
        architecture = networks.ARCHITECTURES[described.architecture]
        config = networks.parse(described.architecture, described.config)
        return TensorFlowNetwork(model, architecture.multiple(config), architecture.halo(config))

    def describe(self) -> Described:
        """See `Executor.describe`."""
        import tensorflow as tf

        device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
        return Described("tensorflow", "float32", device)


def pad(batch: NDArray[np.float32], multiple: int) -> NDArray[np.float32]:
    """Continue (n, h, w, c) below and to the right, mirrored at the last pixel, to multiples of `multiple`."""
    below, right = -batch.shape[1] % multiple, -batch.shape[2] % multiple
    if not below and not right:
        return batch
    # numpy's "reflect" repeats the mirror where the picture is smaller than the pad, and copies a single pixel
    return np.pad(batch, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")
