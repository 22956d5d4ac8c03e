"""Another wiring of the worker, for tests: real database, real files, real keeper and committer; a network that does nothing."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy.exc import OperationalError
from uuid_utils import uuid7

from shared.batches.store import Batches
from shared.bells.memory import MemoryRinger
from shared.blobs.local import LocalBlobs
from shared.blobs.store import Blobs, Draft
from shared.database.engine import open_database
from shared.database.migration import migrate
from shared.datasets.store import Datasets
from shared.errors import Outcome
from shared.folders.outputs import Outputs
from shared.folders.roots import Roots
from shared.jobs.job import Job, Kind, Lane, NewJob, blob_key
from shared.jobs.store import Jobs
from shared.models import registry
from shared.models.store import Models
from shared.settings import Settings
from shared.workers.store import Workers
from trainer.execution import Described, Network
from trainer.execution.choice import Fitting
from worker.artifacts import Artifacts
from worker.committer import Committer
from worker.keeper import Keeper
from worker.loop import Loop
from worker.wiring import Networks, Ports

CALL_BYTES = 1 << 30


class Identity:
    """A network that returns what it is given."""

    multiple = 8
    halo = 8
    bytes_per_pixel = 24
    described = Described("test", "float32", "cpu")

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return inputs[0]


@dataclass
class Running:
    """An executor whose every model is the same network."""

    network: Network

    def load(self, artifact: Path, look: Callable[[], None] = lambda: None) -> Network:
        return self.network

    def describe(self) -> Described:
        return self.network.described


class Forgetful(Jobs):
    """A store whose database is away the first times that an attempt's end is written."""

    times = 2

    def _away(self) -> None:
        if self.times:
            self.times -= 1
            raise OperationalError("UPDATE", {}, Exception("away"))

    def fail(self, job: Job, outcome: Outcome) -> bool:
        self._away()
        return super().fail(job, outcome)

    def retry(self, job: Job, outcome: Outcome, delay_seconds: float, alone: bool = False) -> bool:
        self._away()
        return super().retry(job, outcome, delay_seconds, alone)


def ports(home: Path, network: Network | None = None, lease_seconds: float = 30) -> Ports:
    """Real database and files under `home`."""
    home.mkdir(exist_ok=True)
    settings = Settings(home=home, min_free=0, lease_seconds=lease_seconds, renew_seconds=lease_seconds / 3)
    engine = open_database(settings.database)
    migrate(engine)
    Models(engine).register(registry.shipped())
    blobs = LocalBlobs(settings.blobs)
    artifacts = Artifacts(Models(engine), blobs, settings.models)
    executor = Fitting(Running(network or Identity()))
    jobs = Jobs(engine, lease_seconds)
    return Ports(
        settings, jobs, Workers(engine, lease_seconds), Batches(engine, jobs), blobs, Outputs(Roots.of(settings)), MemoryRinger(),
        artifacts, Networks(executor, artifacts.folder, CALL_BYTES), Datasets(engine),
    )  # fmt: skip


class Stores(Protocol):
    """Where jobs are put: the `Ports` of a worker, or a benchmark's home."""

    @property
    def jobs(self) -> Jobs: ...

    @property
    def blobs(self) -> Blobs: ...


def submit(ports: Stores, pixels: NDArray[np.uint8], name: str = "photo.png", speed: str = "normal", lane: Lane = Lane.INTERACTIVE) -> Job:
    """What the API leaves behind: the upload published, then the row."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    draft = ports.blobs.draft()
    draft.write(file.getvalue())
    return submit_bytes(ports, draft, pixels.shape[1], pixels.shape[0], name, speed, lane)


def submit_bytes(
    ports: Stores, draft: Draft, width: int, height: int, name: str = "photo.png", speed: str = "normal", lane: Lane = Lane.INTERACTIVE
) -> Job:
    """Publish a draft as the upload of a new job."""
    job_id = str(uuid7())
    key = blob_key(job_id, "upload")
    size, sha256 = draft.size, draft.sha256()
    draft.place(key)
    described = {"name": name, "bytes": size, "sha256": sha256, "format": "PNG", "width": width, "height": height}
    new = NewJob(
        id=job_id,
        owner_id="local",
        kind=Kind.RESTORE,
        lane=lane,
        task="denoise",
        model_name="denoise",
        model_version=1,
        input=described | {"mode": "RGB", "bits": 8, "key": key},
        params={"format": "keep", "speed": speed},
        pixels=width * height,
        max_attempts=3,
        request_id="request",
    )
    return ports.jobs.accept(new)


def work(ports: Ports, budget_pixels: int = 50_000_000, lanes: Sequence[Lane] = (Lane.INTERACTIVE, Lane.BULK)) -> None:
    """One worker's stretch of work: until nothing is due."""
    keeper = Keeper(ports.jobs, ports.settings.renew_seconds)
    committer = Committer(ports.jobs, ports.blobs, ports.outputs)
    keeper.start()
    committer.start()
    try:
        Loop(ports, keeper, committer, "tests:1", lanes, budget_pixels, 8).run()
    finally:
        committer.stop()
        keeper.stop()


def with_network(ports: Ports, network: Network) -> Ports:
    """The same, with another network."""
    return replace(ports, networks=Networks(Fitting(Running(network)), ports.artifacts.folder, CALL_BYTES))
