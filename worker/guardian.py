"""The parent of the worker process: hears its beat, kills it when it falls silent or overdue, starts it again.

What the dead process held is put right at once, by its tokens: what had begun is suspect and runs alone next time, its
neighbours get their attempt back. If the guardian dies too, the leases lapse and upkeep reaps them.
"""

import signal
import sys
import time
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from shared import children, events, metrics, settings
from shared.children import Child
from shared.database.engine import open_database
from shared.errors import CODES, Outcome
from shared.jobs.job import State
from shared.jobs.store import Jobs
from shared.settings import Settings

LISTEN_SECONDS = 0.5
BACK_OFF_SECONDS = (0.0, 1.0, 2.0, 5.0)
SETTLED_SECONDS = 60.0


# Of a worker that restores. glibc gives every thread memory of its own and takes nothing back of it, and once a large array was freed it
# keeps the next ones too, up to 32 MB each, among all that is small: with pictures of all sizes a worker grew by an eighth. A training,
# which has the same large arrays in each step, keeps them.
FRUGAL = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def main() -> None:
    """Guard until SIGTERM, or until our own parent is gone."""
    chosen = settings.load()
    events.configure()
    metrics.start(chosen.metrics)
    stopping = children.Asked()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    children.hold_lifeline(last_seconds=chosen.grace_seconds + 10)
    children.beat()
    guard(chosen, sys.argv[1], stopping)


def guard(chosen: Settings, part: str, stopping: children.Asked) -> None:
    """Keep one process of `part` (`worker` or `trainer`) alive until `stopping` is set; then end it within its grace."""
    jobs = Jobs(open_database(chosen.database), chosen.lease_seconds)
    failures = 0
    while not stopping.is_set():
        child = Child(children.python("worker.app", part), FRUGAL if part == "worker" else None)
        events.emit("part.started", part=part, pid=child.process.pid)
        lived = _watch(child, part, chosen.silence_seconds, stopping)
        if stopping.is_set():
            child.stop(chosen.grace_seconds + 5)
            _put_right(jobs, {"held": child.last_beat.get("held", [])})  # we stopped it: nobody is suspect
            return
        child.kill()
        child.listen(0)  # what it said last
        events.emit("part.ended", part=part, pid=child.process.pid, status=child.ended())
        _put_right(jobs, child.last_beat)
        child.close()
        failures = 0 if lived > SETTLED_SECONDS else min(failures + 1, len(BACK_OFF_SECONDS) - 1)
        stopping.wait(BACK_OFF_SECONDS[failures])


def _watch(child: Child, part: str, silence_seconds: float, stopping: children.Asked) -> float:
    """Returns when the child has ended, is frozen or overdue, or we stop; how many seconds it lived."""
    began = time.monotonic()
    while child.ended() is None and not stopping.is_set():
        child.listen(LISTEN_SECONDS)
        if child.silent_seconds > silence_seconds or child.last_beat.get("overdue"):
            events.emit("part.frozen", part=part, pid=child.process.pid, silent_s=round(child.silent_seconds, 1))
            break
    return time.monotonic() - began


def _put_right(jobs: Jobs, beat: dict[str, Any]) -> None:
    kind = CODES["worker_lost"]
    lost = Outcome("worker_lost", kind.title, kind.advice, retryable=True)
    overdue, begun = ({tuple(key) for key in beat.get(name, [])} for name in ("overdue", "begun"))
    suspects = overdue or begun
    try:
        for job_id, token in map(tuple, beat.get("held", [])):
            job = jobs.get(job_id)
            if job is None or job.token != token or job.state is not State.RUNNING:
                continue
            if (job_id, token) in suspects:
                jobs.retry(job, lost, 1.0, alone=True)
            else:
                jobs.release(job)
    except SQLAlchemyError as error:  # the database is away: the leases lapse, and upkeep reaps
        events.emit("database.away", reason=type(error).__name__)


if __name__ == "__main__":
    main()
