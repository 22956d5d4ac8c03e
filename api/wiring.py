"""The only place where the API chooses real things. Opens nothing until it is called."""

from dataclasses import dataclass

from api.estimates import Estimates
from api.quota import Quota
from api.watch import Watch
from shared.batches.store import Batches
from shared.bells.ringer import BackgroundRinger, Ringer
from shared.blobs.local import LocalBlobs
from shared.blobs.store import Blobs
from shared.database.engine import open_database
from shared.datasets.store import Datasets
from shared.folders.outputs import Outputs
from shared.folders.roots import Roots
from shared.jobs.store import Jobs
from shared.keys.store import Keys
from shared.models.store import Models
from shared.settings import Settings
from shared.workers.store import Workers


@dataclass(frozen=True)
class Ports:
    """What requests work with."""

    settings: Settings
    jobs: Jobs
    batches: Batches
    models: Models
    datasets: Datasets
    workers: Workers
    keys: Keys
    blobs: Blobs
    outputs: Outputs
    ringer: Ringer
    watch: Watch
    estimates: Estimates
    quota: Quota


def make(settings: Settings) -> Ports:
    """The real things."""
    engine = open_database(settings.database)
    jobs = Jobs(engine, settings.lease_seconds)
    workers = Workers(engine, settings.lease_seconds)
    return Ports(
        settings=settings,
        jobs=jobs,
        batches=Batches(engine, jobs),
        models=Models(engine),
        datasets=Datasets(engine),
        workers=workers,
        keys=Keys(engine),
        blobs=LocalBlobs(settings.blobs),
        outputs=Outputs(Roots.of(settings)),
        ringer=BackgroundRinger(lambda: _celery_ringer(settings)),
        watch=Watch(jobs),
        estimates=Estimates(jobs, workers),
        quota=Quota(jobs, settings.max_queued),
    )


def _celery_ringer(settings: Settings) -> Ringer:
    from shared.bells.celery import CeleryRinger, celery_app  # Celery is imported by the thread that rings, not by the API

    return CeleryRinger(celery_app(settings.redis))
