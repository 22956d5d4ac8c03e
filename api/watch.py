"""One thread watches the database and wakes all who wait for a job to change."""

import threading
import time
from collections import Counter

from sqlalchemy.exc import SQLAlchemyError

from shared import events
from shared.jobs.job import Job
from shared.jobs.store import Jobs

LOOK_SECONDS = 0.25
WAITS = 16  # at once; further ones are answered as if their time were over

stopping = threading.Event()  # set when this process is asked to end: who waits is answered at once


class Watch:
    """Waiting for jobs. The thread starts with the first wait."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._changed = threading.Condition()
        self._waited: Counter[str] = Counter()
        self._versions: dict[str, int] = {}
        self._thread: threading.Thread | None = None

    def until_state_changes(self, job: Job, seconds: float) -> Job:
        """The job when its state is another than it was, or as it is after `seconds`."""
        return self._wait(job, seconds, final=False)

    def until_final(self, job: Job, seconds: float) -> Job:
        """The job when it is final, or as it is after `seconds`."""
        return self._wait(job, seconds, final=True)

    def _wait(self, job: Job, seconds: float, final: bool) -> Job:
        was, until = job.state, time.monotonic() + seconds
        if job.final or seconds <= 0 or not self._enter(job):
            return job
        try:
            while self._newer(job, until - time.monotonic()) and not stopping.is_set():
                job = self._read(job)
                if job.final or not (final or job.state is was):
                    break
            return job
        finally:
            self._leave(job.id)

    def _newer(self, job: Job, seconds: float) -> bool:
        """Wait until a newer version was seen; False when the time is over. Versions only rise."""
        with self._changed:
            newer = lambda: stopping.is_set() or self._versions.get(job.id, 0) > job.version  # noqa: E731  # a sentence, where it is used
            return self._changed.wait_for(newer, max(0.0, seconds))

    def _read(self, job: Job) -> Job:
        try:
            return self._jobs.get(job.id) or job
        except SQLAlchemyError as error:  # what was accepted must not be answered as if it had not been
            events.emit("watch.failed", reason=type(error).__name__)
            time.sleep(LOOK_SECONDS)
            return job

    def _enter(self, job: Job) -> bool:
        with self._changed:
            if self._waited.total() >= WAITS:
                return False
            self._waited[job.id] += 1
            self._versions.setdefault(job.id, job.version)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return True

    def _leave(self, job_id: str) -> None:
        with self._changed:
            self._waited[job_id] -= 1
            if self._waited[job_id] <= 0:
                del self._waited[job_id]
                self._versions.pop(job_id, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waited))
                waited = list(self._waited)
            try:
                found = self._jobs.versions(waited)
            except SQLAlchemyError as error:  # the database is away: who waits, waits on
                events.emit("watch.failed", reason=type(error).__name__)
                found = {}
            with self._changed:
                self._versions.update({job_id: version for job_id, version in found.items() if job_id in self._waited})
                self._changed.notify_all()
            time.sleep(LOOK_SECONDS)
