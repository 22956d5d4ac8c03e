"""The only place where the worker chooses real things."""

import threading
from dataclasses import dataclass, field

from shared import events
from shared.blobs.local import LocalBlobs
from shared.blobs.store import Blobs
from shared.database.engine import open_database
from shared.imaging import tiles
from shared.imaging.tiles import Tile
from shared.jobs.store import Jobs
from shared.models import registry
from shared.settings import Settings
from shared.workers.store import Workers
from trainer.execution import Executor, Network, choice
from worker import memory


@dataclass
class Networks:
    """Loaded networks by name and version; each is loaded once. Who runs one holds `device`: two would only share its cores."""

    executor: Executor
    call_bytes: int  # memory that one call may take
    device: threading.Lock = field(default_factory=threading.Lock)
    _loaded: dict[tuple[str, int], Network] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: str, version: int) -> Network:
        """The network of a model version. Raises `Refused("artifact_invalid")`."""
        with self._loading:
            if (name, version) not in self._loaded:
                network = self.executor.load(registry.shipped_artifact(name, version))
                events.emit("model.loaded", model=f"{name}@{version}", **vars(network.described))
                self._loaded[name, version] = network
            return self._loaded[name, version]

    def plan(self, network: Network, height: int, width: int) -> list[Tile]:
        """The tiles of a picture: one, if a call on the whole fits the memory; else such that a call on each does."""
        pixels = min(tiles.WHOLE_PIXELS, self.call_bytes // network.bytes_per_pixel)
        return tiles.plan(height, width, network.halo, network.multiple, pixels, tiles.side(pixels, network.halo, network.multiple))


@dataclass(frozen=True)
class Ports:
    """What an attempt works with."""

    settings: Settings
    jobs: Jobs
    workers: Workers
    blobs: Blobs
    networks: Networks


def make(settings: Settings) -> Ports:
    """The real things. An executor brings its library along when it loads the first network. Raises `choice.CannotRun`."""
    engine = open_database(settings.database)
    return Ports(
        settings=settings,
        jobs=Jobs(engine, settings.lease_seconds),
        workers=Workers(engine, settings.lease_seconds),
        blobs=LocalBlobs(settings.blobs),
        networks=Networks(choice.choose(settings.executor, settings.networks), memory.budget(settings.memory).call_bytes),
    )
