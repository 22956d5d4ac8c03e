"""One thread watches the database and wakes all who wait for a job to change, and all who follow many."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from shared import events
from shared.jobs.job import Job
from shared.jobs.store import Change, Jobs, Scope

LOOK_SECONDS = 0.25
WAITS = 16  # at once; further ones are answered as if their time were over
GONE = 1 << 62  # newer than any version: the row is not there any more

stopping = threading.Event()  # set when this process is asked to end: who waits is answered at once


@dataclass(eq=False)
class Following:
    """What somebody who follows jobs has not been told yet: of each job its newest change."""

    scope: Scope
    untold: dict[str, Change] = field(default_factory=dict)


class Watch:
    """Waiting for one job, and following many. The thread starts with the first who does."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._changed = threading.Condition()
        self._waited: Counter[str] = Counter()
        self._versions: dict[str, int] = {}
        self._followed: set[Following] = set()
        self._since: int | None = None  # from when the next look for those who follow has to find what changed
        self._looked_at: int | None = None  # the time of the last one
        self._seen: dict[str, int] = {}  # the versions that it found
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def following(self, scope: Scope) -> Iterator[Following]:
        """Within it, changes of those jobs are kept for `news`. What changed just before it may come too."""
        followed = Following(scope)
        now = self._jobs.now()
        with self._changed:
            self._followed.add(followed)
            if self._since is None:
                self._since = now
            self._start()
        try:
            yield followed
        finally:
            with self._changed:
                self._followed.remove(followed)
                if not self._followed:
                    self._since, self._looked_at, self._seen = None, None, {}

    def news(self, followed: Following, seconds: float) -> tuple[list[Change], int | None]:
        """What was not told yet, in the order of its change, and the time up to which that is all; waits for it at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: stopping.is_set() or bool(followed.untold), max(0.0, seconds))
            untold, followed.untold = followed.untold, {}
            looked_at = self._looked_at
        return sorted(untold.values(), key=lambda change: change.changed_at), looked_at

    def until_state_changes(self, job: Job, seconds: float) -> Job | None:
        """The job when its state is another than it was, or as it is after `seconds`; None when it was deleted."""
        return self._wait(job, seconds, final=False)

    def until_final(self, job: Job, seconds: float) -> Job | None:
        """The job when it is final, or as it is after `seconds`; None when it was deleted."""
        return self._wait(job, seconds, final=True)

    def _wait(self, job: Job, seconds: float, final: bool) -> Job | None:
        was, until = job.state, time.monotonic() + seconds
        if job.final or seconds <= 0 or not self._enter(job):
            return job
        try:
            while (left := until - time.monotonic()) > 0 and self._newer(job, left) and not stopping.is_set():
                found = self._read(job)
                if found is None or found.final or not (final or found.state is was):
                    return found
                job = found
            return job
        finally:
            self._leave(job.id)

    def _newer(self, job: Job, seconds: float) -> bool:
        """Wait until a newer version was seen; False when the time is over. Versions only rise."""
        with self._changed:
            newer = lambda: stopping.is_set() or self._versions.get(job.id, 0) > job.version  # noqa: E731  # a sentence, where it is used
            return self._changed.wait_for(newer, seconds)

    def _read(self, job: Job) -> Job | None:
        try:
            return self._jobs.get(job.id)
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
            self._start()
        return True

    def _leave(self, job_id: str) -> None:
        with self._changed:
            self._waited[job_id] -= 1
            if self._waited[job_id] <= 0:
                del self._waited[job_id]
                self._versions.pop(job_id, None)

    def _start(self) -> None:
        """There is somebody to look for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waited or self._followed))
                waited, since = list(self._waited), self._since
            found: dict[str, int] = {}
            looked: tuple[int, list[Change]] | None = None
            try:
                found = dict.fromkeys(waited, GONE) | self._jobs.versions(waited) if waited else {}
                looked = self._jobs.changes(since) if since is not None else None
            except SQLAlchemyError as error:  # the database is away: who waits, waits on
                events.emit("watch.failed", reason=type(error).__name__)
            with self._changed:
                self._versions.update({job_id: version for job_id, version in found.items() if job_id in self._waited})
                if looked is not None and self._followed:
                    self._hand_out(*looked)
                self._changed.notify_all()
            time.sleep(LOOK_SECONDS)

    def _hand_out(self, now: int, changes: list[Change]) -> None:
        """Give those who follow what a look found that the one before had not."""
        new = [change for change in changes if self._seen.get(change.id) != change.version]
        self._since, self._looked_at, self._seen = now, now, {change.id: change.version for change in changes}
        for one in self._followed:
            one.untold.update({change.id: change for change in new if one.scope.holds(change)})
