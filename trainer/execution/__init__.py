"""How a network runs. One seam, `Executor`; which one stands behind it is chosen in `choice.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Described:
    """What a job, the log, `/v1/system` and `lacunad doctor` say of where a network runs."""

    executor: str  # openvino, tensorflow; opencv for classical methods
    precision: str  # float32, bfloat16
    device: str  # cpu, gpu


class Network(Protocol):
    """A loaded network. `multiple`, `halo` and `bytes_per_pixel` tell a tiler what it needs; all count pixels of the picture."""

    multiple: int  # what height and width are padded to
    halo: int  # context on each side of a tile, such that tiled and whole agree to 60 dB
    bytes_per_pixel: int  # memory of a call
    described: Described

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Batches (n, height, width, channels), one for each input of the network → the first one's shape, float32.

        Any number, height and width. Pictures are in 0..1; a mask has one channel, 1 where the picture is to be filled.
        """
        ...


class Executor(Protocol):
    """Loads artifacts and says what it runs on."""

    def load(self, artifact: Path, look: Callable[[], None] = lambda: None) -> Network:
        """The network of an artifact's folder. If that takes long it calls `look` now and then, which ends it by raising.

        Raises `Refused("artifact_invalid")`.
        """
        ...

    def describe(self) -> Described:
        """What it runs networks with; a network that it had to hand to another executor says so itself."""
        ...


def pad(batch: NDArray[np.float32], multiple: int) -> NDArray[np.float32]:
    """Continue (n, h, w, c) below and to the right, mirrored at the last pixel, to multiples of `multiple`."""
    below, right = -batch.shape[1] % multiple, -batch.shape[2] % multiple
    if not below and not right:
        return batch
    # numpy's "reflect" repeats the mirror where the picture is smaller than the pad, and copies a single pixel
    return np.pad(batch, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")
