"""How a network runs. One seam, `Executor`; which one stands behind it is chosen in `worker/wiring.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Described:
    """What a job and the log say of where it ran."""

    executor: str
    precision: str
    device: str


class Network(Protocol):
    """A loaded network. `multiple` and `halo` are in pixels and tell a tiler what it needs."""

    multiple: int
    halo: int

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, height, width, channels) in 0..1 → the same shape, float32. Any height and width."""
        ...


class Executor(Protocol):
    """Loads artifacts and says what it runs on."""

    def load(self, folder: Path) -> Network:
        """The network of an artifact's folder. Raises `Refused("artifact_invalid")`."""
        ...

    def describe(self) -> Described:
        """Executor, precision and device, as they really are."""
        ...
