"""Ends the keeping of pictures and results whose time is over: first in their rows; the sweeper takes the files a pass later."""

from shared import events
from shared.jobs.store import Jobs


def expire(jobs: Jobs, keep_seconds: float) -> int:
    """One pass; how many jobs expired. None do where `keep_seconds` is 0."""
    expired = jobs.expire(keep_seconds) if keep_seconds else 0
    if expired:
        events.emit("upkeep.expired", jobs=expired)
    return expired
