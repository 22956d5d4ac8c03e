"""Ends the keeping of pictures and results whose time is over: first in their rows; the sweeper takes the files a pass later."""

from shared import events
from shared.jobs.store import Jobs

DAY_SECONDS = 24 * 3600


def expire(jobs: Jobs, keep_days: float) -> int:
    """One pass; how many jobs expired. None do where `keep_days` is 0."""
    expired = jobs.expire(keep_days * DAY_SECONDS) if keep_days else 0
    if expired:
        events.emit("upkeep.expired", jobs=expired)
    return expired
