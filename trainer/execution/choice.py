"""Which executor runs the networks: on a GPU TensorFlow, on a CPU OpenVINO, or what the setting says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.models import manifest
from trainer.execution import Described, Executor, Network, classic, openvino, tensorflow
from trainer.execution.classic import ClassicExecutor
from trainer.execution.openvino import OpenVinoExecutor
from trainer.execution.tensorflow import TensorFlowExecutor


class CannotRun(Exception):
    """A sentence about what is missing, and what to do."""


def check(setting: str) -> None:
    """Raises `CannotRun` if what LACUNA_EXECUTOR asks for is not installed. Imports neither library."""
    if setting == "auto" and not openvino.installed() and not tensorflow.installed():
        raise CannotRun("Neither OpenVINO nor TensorFlow is installed: install requirements/serving.txt or requirements/full.txt.")
    if setting == "openvino" and not openvino.installed():
        raise CannotRun("OpenVINO is not installed: install requirements/serving.txt, or set LACUNA_EXECUTOR=tensorflow.")
    if setting == "tensorflow" and not tensorflow.installed():
        raise CannotRun("TensorFlow is not installed: install requirements/full.txt, or set LACUNA_EXECUTOR=openvino.")


@dataclass(frozen=True)
class Fitting:
    """An executor that hands each artifact to the one that fits: a classical method to OpenCV, all else to `networks`."""

    networks: Executor

    def load(self, artifact: Path, look: Callable[[], None] = lambda: None) -> Network:
        """See `Executor.load`."""
        fits = ClassicExecutor() if manifest.read(artifact).architecture == classic.ARCHITECTURE else self.networks
        return fits.load(artifact, look)

    def describe(self) -> Described:
        """See `Executor.describe`."""
        return self.networks.describe()


def choose(setting: str, cached: Path, precision: str | None = None) -> Executor:
    """The executor for LACUNA_EXECUTOR; `cached` is the folder of exported networks. Raises `CannotRun`.

    Without a `precision` it takes what is best on this machine.
    """
    check(setting)
    if setting == "auto":
        gpu = tensorflow.installed() and tensorflow.has_gpu()
        setting = "openvino" if openvino.installed() and not gpu else "tensorflow"
    return OpenVinoExecutor(cached, precision) if setting == "openvino" else TensorFlowExecutor(precision or "float32")
