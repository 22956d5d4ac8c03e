"""TensorFlow: for GPUs, and where OpenVINO cannot run a network.

One traced function of unknown height and width. Never `model.predict` (seven times slower), never XLA on CPUs.
"""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import Fault
from trainer import artifact, networks
from trainer.execution import Described, pad

GPU_SIGNS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))  # NVIDIA, WSL, AMD; asking TensorFlow itself takes 3 s


class TensorFlowNetwork:
    """A network traced once for any batch, height and width."""

    def __init__(self, model: Any, multiple: int, halo: int, bytes_per_pixel: int, described: Described) -> None:
        import tensorflow as tf

        self.multiple = multiple
        self.halo = halo
        self.bytes_per_pixel = bytes_per_pixel
        self.described = described
        self._exhausted = tf.errors.ResourceExhaustedError
        self._call = tf.function(
            lambda *inputs: model(list(inputs) if len(inputs) > 1 else inputs[0], training=False),
            autograph=False,
            input_signature=[tf.TensorSpec((None, None, None, given.shape[-1]), tf.float32) for given in model.inputs],
        )

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Network.run`. A batch for which the device has too little memory is halved.

        Raises `Fault("out_of_memory")` when a single picture is too large.
        """
        try:
            return self._run(*inputs)
        except self._exhausted as error:
            count = inputs[0].shape[0]
            if count == 1:
                size = "{1} × {0}".format(*inputs[0].shape[1:3])
                raise Fault("out_of_memory", f"The device's memory does not hold {size} pixels at once: lower LACUNA_MEMORY.") from error
        halves = ([given[: count // 2] for given in inputs], [given[count // 2 :] for given in inputs])
        return np.concatenate([self.run(*half) for half in halves])

    def _run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = inputs[0].shape[1:3]
        output = self._call(*(pad(given, self.multiple) for given in inputs)).numpy()
        return np.asarray(output[:, :height, :width], dtype=np.float32)


class TensorFlowExecutor:
    """Keras on TensorFlow. Imports TensorFlow when it loads the first network."""

    def __init__(self, precision: str = "float32") -> None:
        self._precision = precision

    def load(self, artifact_folder: Path, look: Callable[[], None] = lambda: None) -> TensorFlowNetwork:
        """See `Executor.load`."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import, or TensorFlow chatters
        described, model = artifact.load_network(artifact_folder, self._precision)
        architecture = networks.ARCHITECTURES[described.architecture]
        config = networks.parse(described.architecture, described.config)
        return TensorFlowNetwork(
            model, architecture.multiple(config), architecture.halo(config), architecture.bytes_per_pixel(config), self.describe()
        )

    def describe(self) -> Described:
        """See `Executor.describe`."""
        return Described("tensorflow", self._precision, "gpu" if has_gpu() else "cpu")


def installed() -> bool:
    """Whether TensorFlow is there; a worker that restores on a CPU does without."""
    return importlib.util.find_spec("tensorflow") is not None


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU. Imports TensorFlow, if there is a sign of one."""
    if not any(sign.exists() for sign in GPU_SIGNS):
        return False
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    for device in found:
        tf.config.experimental.set_memory_growth(device, True)  # others may need the device too
    return bool(found)
