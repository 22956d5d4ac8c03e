"""The only place where the worker chooses real things."""

import threading
from dataclasses import dataclass, field

from shared import events
from shared.blobs.local import LocalBlobs
from shared.blobs.store import Blobs
from shared.database.engine import open_database
from shared.jobs.store import Jobs
from shared.models import registry
from shared.settings import Settings
from trainer.execution import Executor, Network


@dataclass
class Networks:
    """Loaded networks by name and version; each is loaded once. Who runs one holds `device`: two would only share its cores."""

    executor: Executor
    device: threading.Lock = field(default_factory=threading.Lock)
    _loaded: dict[tuple[str, int], Network] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: str, version: int) -> Network:
        """The network of a model version. Raises `Refused("artifact_invalid")`."""
        with self._loading:
            if (name, version) not in self._loaded:
                self._loaded[name, version] = self.executor.load(registry.shipped_artifact(name, version))
                events.emit("model.loaded", model=f"{name}@{version}", **vars(self.executor.describe()))
            return self._loaded[name, version]


@dataclass(frozen=True)
class Ports:
    """What an attempt works with."""

    settings: Settings
    jobs: Jobs
    blobs: Blobs
    networks: Networks


def make(settings: Settings) -> Ports:
    """The real things. TensorFlow is imported when the first network is loaded."""
    from trainer.execution.tensorflow import TensorFlowExecutor

    return Ports(
        settings=settings,
        jobs=Jobs(open_database(settings.database), settings.lease_seconds),
        blobs=LocalBlobs(settings.blobs),
        networks=Networks(TensorFlowExecutor()),
    )
