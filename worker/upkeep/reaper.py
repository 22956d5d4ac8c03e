"""Takes jobs away from workers whose lease lapsed, unless it was itself asleep and cannot know."""

import time
from collections.abc import Callable

from shared import events
from shared.jobs.job import Job
from shared.jobs.store import Jobs


class Reaper:
    """Reaps nothing for one lease after its own pass was late by more than a third of a lease.

    Then the database was away, the machine asleep or the clock stepped: healthy workers could not renew either. It looks
    at two clocks, because neither notices everything: the steady one stands still while a laptop sleeps.
    """

    def __init__(
        self, jobs: Jobs, lease_seconds: float, tick_seconds: float, clocks: tuple[Callable[[], float], ...] = (time.monotonic, time.time)
    ) -> None:
        self._jobs = jobs
        self._lease = lease_seconds
        self._late = tick_seconds + lease_seconds / 3
        self._clocks = clocks
        self._last = [clock() for clock in clocks]
        self._paused_until = clocks[0]()

    def reap(self) -> list[Job]:
        """One pass; what was reaped. Of leases those lapse that had by its beginning: the database may let it wait for long."""
        at = self._jobs.now()
        now = [clock() for clock in self._clocks]
        late = any(not 0 <= current - last <= self._late for current, last in zip(now, self._last, strict=True))
        if late:
            self._paused_until = now[0] + self._lease
            events.emit("upkeep.late", paused_s=self._lease)
        reaped = self._jobs.reap(pardon=now[0] < self._paused_until, at=at)
        self._last = now  # of a pass that succeeded: as long as the database is away, there is none
        return reaped
