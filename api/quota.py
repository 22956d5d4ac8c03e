"""How many jobs of one owner may wait or run. To count them at each POST would take longer than the rest of it."""

import threading
import time

from shared.errors import Transient
from shared.jobs.store import Jobs

AGAIN_SECONDS = 1.0  # who has no room is counted at most so often
RETRY_SECONDS = 10


class Quota:
    """Counts an owner's jobs, lets half of the room that is left be used, and counts again.

    Jobs that end meanwhile are found by the next count. Requests at the same moment may exceed `most` by as many as there are.
    """

    def __init__(self, jobs: Jobs, most: int, again_seconds: float = AGAIN_SECONDS) -> None:
        self._jobs = jobs
        self._most = most
        self._again_seconds = again_seconds
        self._lock = threading.Lock()
        self._left: dict[str, int] = {}  # owner → how many more need no count
        self._full: dict[str, float] = {}  # owner → when there was no room

    def take(self, owner_id: str) -> None:
        """Room for one more job. Raises `Transient("too_many_jobs")`."""
        with self._lock:
            if self._left.get(owner_id, 0):
                self._left[owner_id] -= 1
                return
            was_full = self._full.get(owner_id)
        if was_full is not None and time.monotonic() - was_full < self._again_seconds:
            raise self._refusal()
        room = self._most - self._jobs.unfinished(owner_id, self._most)
        with self._lock:
            if room <= 0:
                self._full[owner_id] = time.monotonic()
                raise self._refusal()
            self._left[owner_id] = (room - 1) // 2

    def _refusal(self) -> Transient:
        return Transient(
            "too_many_jobs",
            f"{self._most} of your jobs have not ended. Wait until some have, cancel some, or raise LACUNA_MAX_QUEUED.",
            retry_after_s=RETRY_SECONDS,
        )
