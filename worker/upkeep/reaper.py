"""Takes jobs away from workers whose lease lapsed, unless it was itself asleep and cannot know."""

import time
from collections.abc import Callable

from shared import events
from shared.jobs.job import Job
from shared.jobs.store import Jobs


class Reaper:
    """Reaps nothing for one lease after a pass was late, or the database's clock went otherwise than the steady one between two.

    A third of a lease is borne. More means that the database was away, a machine asleep or a clock stepped: healthy workers
    could not renew either. Leases go by the database's clock and no other, so that is looked at; the steady one tells how
    much it may have gone on, and stands still while a laptop sleeps.
    """

    def __init__(self, jobs: Jobs, lease_seconds: float, tick_seconds: float, steady: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._lease = lease_seconds
        self._tick = tick_seconds
        self._steady = steady
        self._last = steady()
        self._last_now: int | None = None  # the database's; unknown before the first pass
        self._paused_until = self._last

    def reap(self) -> list[Job]:
        """One pass; what was reaped."""
        now, steady = self._jobs.now(), self._steady()
        passed = steady - self._last
        stepped = 0.0 if self._last_now is None else (now - self._last_now) / 1000 - passed
        if passed > self._tick + self._lease / 3 or abs(stepped) > self._lease / 3:
            self._paused_until = steady + self._lease
            events.emit("upkeep.late", paused_s=self._lease)
        # by the time that was looked at: the clock can be stepped also between the look and the reaping
        reaped = self._jobs.reap(pardon=steady < self._paused_until, at=now)
        self._last, self._last_now = steady, now  # of a pass that succeeded: as long as the database is away, there is none
        return reaped
