"""A worker that dies at a named point of its attempt, wired so; run as a process of its own: `dying HOME POINT`."""

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shared.blobs.local import LocalBlobs
from shared.jobs.job import Success
from shared.jobs.store import Jobs, Publications
from tests.promises import wiring

POINTS = ("claimed", "decoding", "in the network", "stored", "synced", "committed")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingBlobs(LocalBlobs):
    def __init__(self, root: Path, point: str) -> None:
        super().__init__(root)
        self._point = point

    def open(self, key: str) -> BinaryIO:
        if self._point == "claimed":
            die()
        return _DyingFile(super().open(key)) if self._point == "decoding" else super().open(key)  # type: ignore[return-value]

    def sync(self, keys: Iterable[str]) -> None:
        if self._point == "stored":
            die()
        super().sync(keys)


class _DyingFile:
    """Dies at its third read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._reads = 0

    def __enter__(self) -> "_DyingFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > 2:
            die()
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class DyingJobs(Jobs):
    point = ""

    def succeed(self, group: Sequence[Success], published: Publications = None) -> frozenset[tuple[str, int]]:
        if self.point == "synced":
            die()
        done = super().succeed(group, published)
        if self.point == "committed":
            die()
        return done


class DyingNetwork(wiring.Identity):
    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        die()
        return inputs[0]


def main() -> None:
    home, point = Path(sys.argv[1]), sys.argv[2]
    ports = wiring.ports(home, DyingNetwork() if point == "in the network" else None)
    jobs = DyingJobs(ports.jobs._engine, 30)
    jobs.point = point
    wiring.work(replace(ports, jobs=jobs, blobs=DyingBlobs(ports.settings.blobs, point)))


if __name__ == "__main__":
    main()
