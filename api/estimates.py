"""How long a job will take: from what waits before it, how fast its model was lately, and how many workers there are."""

import threading
import time
from collections.abc import Mapping

from sqlalchemy.exc import SQLAlchemyError

from shared import events
from shared.jobs.job import Job, Lane, State
from shared.jobs.store import Jobs, Load
from shared.workers.store import Workers

KEPT_SECONDS = 1.0  # what times are estimated from is read at most so often, for however many jobs


class Estimates:
    """Estimates from the database as it was a moment ago."""

    def __init__(self, jobs: Jobs, workers: Workers, kept_seconds: float = KEPT_SECONDS) -> None:
        self._jobs = jobs
        self._workers = workers
        self._kept_seconds = kept_seconds
        self._lock = threading.Lock()
        self._read: tuple[float, Load, Mapping[str, int]] | None = None

    def seconds(self, job: Job) -> float | None:
        """Until the job has ended; None if that is unknown. Reads nothing for a job that has ended."""
        if job.final:
            return None
        try:
            load, workers = self._now()
        except SQLAlchemyError as error:  # a job that was accepted must not look refused for it
            events.emit("watch.failed", reason=type(error).__name__)
            return None
        estimated = running(job, load) if job.state is State.RUNNING else waiting(job, load, workers.get(job.lane, 0))
        return None if estimated is None or estimated <= 0 else round(estimated, 1)  # it takes longer than others did: how long, who knows

    def _now(self) -> tuple[Load, Mapping[str, int]]:
        with self._lock:
            if self._read is None or time.monotonic() - self._read[0] > self._kept_seconds:
                lanes = [lane for worker in self._workers.list() for lane in worker.lanes]
                self._read = time.monotonic(), self._jobs.load(), {lane: lanes.count(lane) for lane in lanes}
            return self._read[1:]


def running(job: Job, load: Load) -> float | None:
    """From its own pace, once a part is done; else from the rate of its model, while those beside it take turns with it.

    Only a first attempt has a pace: later ones have no start of their own in the row.
    """
    began = job.started_at if job.token == 1 else None
    if began is not None and job.progress_done:
        left = (job.changed_at - began) / 1000 / job.progress_done * (job.progress_total - job.progress_done)
        return left - (load.now - job.changed_at) / 1000
    rate = load.rates.get((job.model_name, job.model_version))
    if rate is None:
        return None
    own = job.cost_mpx * (1 - (job.progress_done / job.progress_total if job.progress_total else 0.0))
    beside = sum(min(other.left_mpx, own) for other in load.running if other.worker == job.worker and other.id != job.id)
    return rate * (own + beside) - (load.now - (began or job.changed_at)) / 1000


def waiting(job: Job, load: Load, workers: int) -> float | None:
    """From what is in work, and from the turns: each flow has so many megapixels waiting as its last turn is behind V.

    Of the job's lane those before it count, of the lanes before its own all.
    """
    rate = load.rates.get((job.model_name, job.model_version))
    if rate is None or not workers:
        return None
    served = [Lane.TRAIN] if job.lane == Lane.TRAIN else [Lane.INTERACTIVE, Lane.BULK]  # by the same workers, in this order
    before = served[: served.index(Lane(job.lane))]
    ahead = 0.0
    for lane, last_turn in load.waiting:
        if lane == job.lane:
            ahead += max(0.0, min(last_turn, job.turn) - load.claimed[lane])
        elif lane in before:
            ahead += last_turn - load.claimed[lane]
    in_work = sum(other.left_mpx for other in load.running if other.lane in served)
    return (max(ahead, job.cost_mpx) + in_work) * rate / workers
