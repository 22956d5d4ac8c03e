"""The upkeep process: a round every `tick_seconds`."""

import signal
import threading

from sqlalchemy.exc import SQLAlchemyError

from shared import children, events, metrics, settings
from shared.batches.store import Batches
from shared.bells.celery import CeleryRinger, celery_app
from shared.bells.ringer import BackgroundRinger
from shared.blobs.local import LocalBlobs
from shared.blobs.store import Blobs
from shared.database.engine import open_database
from shared.datasets.store import Datasets
from shared.folders.outputs import Outputs
from shared.folders.publishing import settle
from shared.folders.roots import Roots
from shared.jobs.store import Jobs
from shared.models.store import Models
from shared.settings import Settings
from worker.upkeep.expirer import expire
from worker.upkeep.reaper import Reaper
from worker.upkeep.resumer import resume_roomy
from worker.upkeep.ringer import ring_again
from worker.upkeep.sweeper import sweep

LONGEST_PAUSE_SECONDS = 600.0  # between sweeps


def main() -> None:
    """Run until SIGTERM."""
    chosen = settings.load()
    events.configure()
    metrics.start(chosen.metrics)
    stopping = children.Asked()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    children.hold_lifeline()
    rounds = 0
    children.beat(lambda: {"rounds": rounds})

    engine = open_database(chosen.database)
    jobs = Jobs(engine, chosen.lease_seconds)
    batches = Batches(engine, jobs)
    blobs = LocalBlobs(chosen.blobs)
    outputs = Outputs(Roots.of(chosen))
    ringer = BackgroundRinger(lambda: CeleryRinger(celery_app(chosen.redis)))
    reaper = Reaper(jobs, chosen.lease_seconds, chosen.tick_seconds)
    registries = Models(engine), Datasets(engine)
    threading.Thread(target=_sweep, args=[jobs, *registries, blobs, chosen, stopping], name="sweeper", daemon=True).start()
    while not stopping.is_set():
        try:
            reaper.reap()
            ring_again(jobs, ringer, 2 * chosen.tick_seconds)
            batches.seal_forgotten()
            batches.fail_unlisted()
            batches.cancel_rest()
            settle(jobs, outputs)
            resume_roomy(batches, outputs.roots, chosen.min_free)
            batches.finish()
        except SQLAlchemyError as error:  # the database is away: the next round tries again
            events.emit("upkeep.failed", reason=f"{type(error).__name__}: {error}"[:300])
        rounds += 1
        stopping.wait(chosen.tick_seconds)


def _sweep(jobs: Jobs, models: Models, datasets: Datasets, blobs: Blobs, chosen: Settings, stopping: children.Asked) -> None:
    """In a thread of its own: with a hundred thousand blobs a sweep takes longer than the reaper may be late."""
    while not stopping.is_set():
        try:
            sweep(jobs, models, datasets, blobs, chosen.sweep_seconds)
            expire(jobs, chosen.keep_seconds)  # after sweeping: the files of what expires now go in a later pass
            metrics.forget(chosen.metrics)
        except (SQLAlchemyError, OSError) as error:  # the database or the disk is away: the next sweep tries again
            events.emit("upkeep.failed", reason=f"{type(error).__name__}: {error}"[:300])
        stopping.wait(min(chosen.sweep_seconds / 4, LONGEST_PAUSE_SECONDS))


if __name__ == "__main__":
    main()
