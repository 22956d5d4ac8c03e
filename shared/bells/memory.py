"""Bells in memory: the double of `celery.py`, held to the same contract."""


class MemoryRinger:
    """Remembers what rang."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, str]] = []

    def ring(self, lane: str, job_id: str) -> None:
        """See `Ringer.ring`."""
        self.rung.append((lane, job_id))
