"""The only place where the worker chooses real things."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared import events
from shared.batches.store import Batches
from shared.bells.celery import CeleryRinger, celery_app
from shared.bells.ringer import BackgroundRinger, Ringer
from shared.blobs.local import LocalBlobs
from shared.blobs.store import Blobs
from shared.database.engine import open_database
from shared.datasets.store import Datasets
from shared.folders.outputs import Outputs
from shared.folders.roots import Roots
from shared.imaging import tiles
from shared.imaging.tiles import Tile
from shared.jobs.store import Jobs
from shared.models.store import Models
from shared.settings import Settings
from shared.workers.store import Workers
from trainer.execution import Executor, Network, choice
from worker import memory
from worker.artifacts import Artifacts

KEPT = 4  # networks in memory, about 100 MB each


@dataclass
class Networks:
    """Loaded networks by name and version, the `KEPT` used last. Who runs one holds `device`: two would only share its cores."""

    executor: Executor
    folder: Callable[[str, int], Path]  # where the files of a model version lie
    call_bytes: int  # memory that one call may take
    device: threading.Lock = field(default_factory=threading.Lock)
    _loaded: dict[tuple[str, int], Network] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)
    _keeping: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: str, version: int, look: Callable[[], None] = lambda: None) -> Network:
        """The network of a model version; `look` as in `Executor.load`.

        Raises `Refused` unknown_model or artifact_invalid, `Fault("artifact_invalid")`.
        """
        key = name, version
        if (known := self._loaded.get(key)) is not None:  # nobody waits for what another one loads
            return self._keep(key, known)
        with self._loading:
            if (known := self._loaded.get(key)) is None:
                known = self.executor.load(self.folder(name, version), look)
                events.emit("model.loaded", model=f"{name}@{version}", **vars(known.described))
            return self._keep(key, known)

    def _keep(self, key: tuple[str, int], network: Network) -> Network:
        """As the one used last; the one that was not used for longest goes, if it is one too many."""
        with self._keeping:
            self._loaded.pop(key, None)
            self._loaded[key] = network
            if len(self._loaded) > KEPT:
                del self._loaded[next(iter(self._loaded))]
        return network

    def plan(self, network: Network, height: int, width: int, holes: NDArray[np.bool_] | None = None) -> list[Tile]:
        """The tiles of a picture, or of its holes: one, if a call on the whole fits the memory; else such that a call on each does."""
        pixels = min(tiles.WHOLE_PIXELS, self.call_bytes // network.bytes_per_pixel)
        side = tiles.side(pixels, network.halo, network.multiple)
        if holes is not None:
            return tiles.around(holes, network.halo, network.multiple, pixels, side)
        return tiles.plan(height, width, network.halo, network.multiple, pixels, side)


@dataclass(frozen=True)
class Ports:
    """What an attempt works with."""

    settings: Settings
    jobs: Jobs
    workers: Workers
    batches: Batches
    blobs: Blobs
    outputs: Outputs
    ringer: Ringer
    artifacts: Artifacts
    networks: Networks
    datasets: Datasets


def make(settings: Settings, executor: str) -> Ports:
    """The real things; `executor` is auto, openvino or tensorflow, and brings its library along when it loads the first network.

    Raises `choice.CannotRun`.
    """
    engine = open_database(settings.database)
    blobs = LocalBlobs(settings.blobs)
    artifacts = Artifacts(Models(engine), blobs, settings.models)
    jobs = Jobs(engine, settings.lease_seconds)
    return Ports(
        settings=settings,
        jobs=jobs,
        workers=Workers(engine, settings.lease_seconds),
        batches=Batches(engine, jobs),
        blobs=blobs,
        outputs=Outputs(Roots.of(settings)),
        ringer=BackgroundRinger(lambda: CeleryRinger(celery_app(settings.redis))),
        artifacts=artifacts,
        networks=Networks(
            choice.Fitting(choice.choose(executor, settings.networks)), artifacts.folder, memory.budget(settings.memory).call_bytes
        ),
        datasets=Datasets(engine),
    )
