"""The port of ringing, and the thread that rings for the API: a POST never waits for Redis."""

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from shared import events

WAITING_BELLS = 10_000


class RingFailed(Exception):
    """The bell did not arrive. Not an error: workers also look for themselves."""


class Ringer(Protocol):
    """Rings a lane."""

    def ring(self, lane: str, job_id: str) -> None:
        """Tell the workers of `lane`. Raises `RingFailed`."""
        ...


class BackgroundRinger:
    """Rings from a thread of its own. Bells that it cannot keep up with are dropped: the rows are found by looking."""

    def __init__(self, make: Callable[[], Ringer]) -> None:
        """`make` opens the real ringer, in the thread and at the first bell."""
        self._make = make
        self._bells: queue.Queue[tuple[str, str]] = queue.Queue(maxsize=WAITING_BELLS)
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring(self, lane: str, job_id: str) -> None:
        """See `Ringer.ring`; returns at once and raises nothing."""
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ringer", daemon=True)
                self._thread.start()
        try:
            self._bells.put_nowait((lane, job_id))
        except queue.Full:
            events.emit("bell.failed", job_id=job_id, reason="too many bells wait")

    def _run(self) -> None:
        ringer = self._make()
        while True:
            lane, job_id = self._bells.get()
            try:
                ringer.ring(lane, job_id)
            except RingFailed as error:
                events.emit("bell.failed", job_id=job_id, reason=str(error))
            except Exception as error:  # noqa: BLE001  # told, and the next bell may ring: a thread that ended would never
                events.emit("bell.failed", job_id=job_id, cause=error)
