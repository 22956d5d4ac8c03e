"""The upkeep process: a round every `tick_seconds`."""

import signal
import threading

from sqlalchemy.exc import SQLAlchemyError

from shared import children, events, settings
from shared.bells.celery import CeleryRinger, celery_app
from shared.bells.ringer import BackgroundRinger
from shared.blobs.local import LocalBlobs
from shared.database.engine import open_database
from shared.jobs.store import Jobs
from worker.upkeep.reaper import Reaper
from worker.upkeep.ringer import ring_again
from worker.upkeep.sweeper import sweep


def main() -> None:
    """Run until SIGTERM."""
    chosen = settings.load()
    events.configure()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    children.hold_lifeline()
    rounds = 0
    children.beat(lambda: {"rounds": rounds})

    jobs = Jobs(open_database(chosen.database), chosen.lease_seconds)
    blobs = LocalBlobs(chosen.blobs)
    ringer = BackgroundRinger(lambda: CeleryRinger(celery_app(chosen.redis)))
    reaper = Reaper(jobs, chosen.lease_seconds, chosen.tick_seconds)
    sweep_every = max(1, int(min(chosen.sweep_seconds / 4, 600) / chosen.tick_seconds))
    while not stopping.is_set():
        try:
            reaper.reap()
            ring_again(jobs, ringer, 2 * chosen.tick_seconds)
            if rounds % sweep_every == 0:
                sweep(jobs, blobs, chosen.sweep_seconds)
        except (SQLAlchemyError, OSError) as error:  # the database or the disk is away: the next round tries again
            events.emit("upkeep.failed", reason=f"{type(error).__name__}: {error}"[:300])
        rounds += 1
        stopping.wait(chosen.tick_seconds)


if __name__ == "__main__":
    main()
