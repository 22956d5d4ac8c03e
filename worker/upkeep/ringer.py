"""Rings again for due rows that nobody took: their bell was lost, or their back-off is over."""

from shared import events
from shared.bells.ringer import Ringer, RingFailed
from shared.jobs.store import Jobs


def ring_again(jobs: Jobs, ringer: Ringer, older_than_seconds: float) -> int:
    """Ring for each due row that was not rung for since; how many."""
    unheard = jobs.unheard(older_than_seconds)
    for job_id, lane in unheard:
        try:
            ringer.ring(lane, job_id)
        except RingFailed as error:
            events.emit("bell.failed", job_id=job_id, reason=str(error))
            break
    if unheard:
        events.emit("upkeep.rang", jobs=len(unheard))
    return len(unheard)
