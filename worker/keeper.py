"""One thread per worker process keeps its leases: writes progress each second, learns what is no longer ours, renews.

Whenever leases would be renewed it also says that the worker lives, and what it runs networks with.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from shared import events
from shared.jobs.job import Job
from shared.jobs.store import Jobs
from worker.room import Room

ROUND_SECONDS = 1.0
BASE_DEADLINE_SECONDS = 60.0
DEADLINE_SECONDS_PER_MPX = 60.0  # half of it would do where bfloat16 is native: this only tells the hung from the slow


class LeaseLost(Exception):
    """The attempt is no longer ours: canceled, or reaped. Nothing more may be written, and nobody needs to be told."""


@dataclass
class Held:
    """One attempt in this process. `done` and `total` count tiles; `began` is None until the attempt starts.

    `computing` is false once only the storage and the database are waited for: that can take long, and nobody is to blame.
    """

    job: Job
    done: int = 0
    total: int = 0
    began: float | None = None
    limit_seconds: float | None = None
    computing: bool = True
    lost: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)  # the worker shuts down: who takes long gives back now
    room: Room = field(default_factory=lambda: Room(0))  # for pixels of pictures that it meets on its way: by default one at a time

    @property
    def key(self) -> tuple[str, int]:
        """What the store knows the attempt by."""
        return self.job.id, self.job.token

    def begin(self, limit_seconds: float | None = None) -> None:
        """The attempt, or a part of it, starts now and has so long; by default what its pixels allow."""
        self.began, self.limit_seconds = time.monotonic(), limit_seconds

    def progress(self, done: int, total: int) -> None:
        """Tell how far it is. Raises `LeaseLost` if the attempt is no longer ours."""
        self.done, self.total = done, total
        self.check()

    def check(self) -> None:
        """Raises `LeaseLost` if the attempt is no longer ours."""
        if self.lost.is_set():
            raise LeaseLost

    def conclude(self) -> None:
        """Nothing is computed any more."""
        self.computing = False

    def overdue(self) -> bool:
        """Whether it has run for longer than any healthy attempt would."""
        by_pixels = BASE_DEADLINE_SECONDS + DEADLINE_SECONDS_PER_MPX * self.job.seen_pixels / 1e6
        limit = by_pixels if self.limit_seconds is None else self.limit_seconds
        return self.began is not None and self.computing and time.monotonic() - self.began > limit


class Keeper:
    """The attempts of this process."""

    def __init__(self, jobs: Jobs, renew_seconds: float, present: Callable[[], None] = lambda: None) -> None:
        """`present` says that the worker lives; it may raise `SQLAlchemyError`."""
        self._jobs = jobs
        self._present = present
        self._renew_seconds = renew_seconds
        self._lock = threading.Lock()
        self._held: dict[tuple[str, int], Held] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to keep."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def hold(self, job: Job, room: Room | None = None) -> Held:
        """Keep this attempt's lease from now on."""
        held = Held(job) if room is None else Held(job, room=room)
        with self._lock:
            self._held[held.key] = held
        return held

    def drop(self, held: Held) -> None:
        """The attempt has ended."""
        with self._lock:
            self._held.pop(held.key, None)

    def all(self) -> list[Held]:
        """The attempts held now."""
        with self._lock:
            return list(self._held.values())

    def _run(self) -> None:
        written: dict[tuple[str, int], tuple[int, int]] = {}
        renewed_at = time.monotonic()
        self._say_so()
        said_at = time.monotonic()
        while not self._stopped.wait(ROUND_SECONDS):
            if time.monotonic() - said_at >= self._renew_seconds:
                self._say_so()
                said_at = time.monotonic()
            held = {item.key: item for item in self.all()}
            written = {key: progress for key, progress in written.items() if key in held}
            if not held:
                continue
            now = {key: (item.done, item.total) for key, item in held.items()}
            changed = [key for key, progress in now.items() if progress != written.get(key, (0, 0))]
            renew = time.monotonic() - renewed_at >= self._renew_seconds
            try:
                ours = self._jobs.keep(now, changed, renew)
            except SQLAlchemyError as error:  # the database is away: the next round tries again, the lease is long
                events.emit("keeper.failed", reason=type(error).__name__)
                continue
            written = now
            renewed_at = time.monotonic() if renew else renewed_at
            for key in held.keys() - ours:
                held[key].lost.set()

    def _say_so(self) -> None:
        try:
            self._present()
        except SQLAlchemyError as error:  # nothing hangs on it
            events.emit("keeper.failed", reason=type(error).__name__)
