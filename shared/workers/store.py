"""The workers that were heard of lately."""

from dataclasses import dataclass

from sqlalchemy import Engine, delete, insert, select, update

from shared.database.engine import READ_ONLY, now_ms
from shared.database.tables import workers

FORGET_MS = 24 * 3600 * 1000  # what a killed worker leaves


@dataclass(frozen=True)
class Worker:
    """A worker process, and what it runs networks with."""

    id: str
    lanes: list[str]
    executor: str
    precision: str
    device: str


@dataclass(frozen=True)
class Seen(Worker):
    """A worker as the database has it; times are milliseconds since 1970."""

    started_at: int
    seen_at: int


class Workers:
    """The table `workers`."""

    def __init__(self, engine: Engine, silence_seconds: float) -> None:
        """A worker that was silent for `silence_seconds` is not shown."""
        self._engine = engine
        self._silence_ms = round(silence_seconds * 1000)

    def present(self, worker: Worker) -> None:
        """It lives."""
        with self._engine.begin() as connection:
            known = connection.execute(update(workers).where(workers.c.id == worker.id).values(**vars(worker), seen_at=now_ms()))
            if known.rowcount == 0:
                connection.execute(delete(workers).where(workers.c.seen_at < now_ms() - FORGET_MS))
                connection.execute(insert(workers).values(**vars(worker), started_at=now_ms(), seen_at=now_ms()))

    def leave(self, worker: Worker) -> None:
        """It ends."""
        with self._engine.begin() as connection:
            connection.execute(delete(workers).where(workers.c.id == worker.id))

    def list(self) -> list[Seen]:
        """The living, oldest first. Who was seen in the future was so before the clock was stepped back, and lives if it says so again."""
        lately = workers.c.seen_at.between(now_ms() - self._silence_ms, now_ms() + self._silence_ms)
        statement = select(workers).where(lately).order_by(workers.c.started_at, workers.c.id)
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return [Seen(**row._mapping) for row in connection.execute(statement)]
