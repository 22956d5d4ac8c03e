"""The workers that are shown: who lives, each once, and nobody who is gone."""

import pytest
from sqlalchemy import Engine, update

from shared.database.engine import now_ms
from shared.database.tables import workers as table
from shared.workers.store import FORGET_MS, Worker, Workers

ONE = Worker("host:1", ["interactive", "bulk"], "openvino", "float32", "cpu")
OTHER = Worker("host:2", ["train"], "tensorflow", "float32", "gpu")


@pytest.fixture
def workers(engine: Engine) -> Workers:
    return Workers(engine, silence_seconds=30)


def age(engine: Engine, worker: Worker, milliseconds: int) -> None:
    with engine.begin() as connection:
        connection.execute(update(table).where(table.c.id == worker.id).values(seen_at=now_ms() - milliseconds))


def rows(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(row.id for row in connection.execute(table.select()))


def test_a_worker_is_shown_once_however_often_it_says_so(workers: Workers) -> None:
    for _ in range(3):
        workers.present(ONE)
    workers.present(OTHER)
    assert [Worker(**{name: getattr(seen, name) for name in vars(ONE)}) for seen in workers.list()] == [ONE, OTHER]


def test_what_a_worker_says_later_counts_and_its_start_stays(workers: Workers) -> None:
    workers.present(ONE)
    (before,) = workers.list()
    workers.present(Worker(ONE.id, ONE.lanes, "tensorflow", "float32", "gpu"))
    (after,) = workers.list()
    assert (after.executor, after.device, after.started_at) == ("tensorflow", "gpu", before.started_at)
    assert after.seen_at >= before.seen_at


def test_who_left_or_is_silent_is_not_shown_and_who_speaks_again_is(workers: Workers, engine: Engine) -> None:
    workers.present(ONE)
    workers.present(OTHER)
    workers.leave(OTHER)
    age(engine, ONE, 31_000)
    assert workers.list() == []
    workers.present(ONE)
    assert [seen.id for seen in workers.list()] == [ONE.id]


def test_who_was_seen_before_the_clock_was_stepped_back_is_shown_when_it_speaks_again(workers: Workers, engine: Engine) -> None:
    workers.present(ONE)
    age(engine, ONE, -600_000)
    assert workers.list() == []
    workers.present(ONE)
    assert [seen.id for seen in workers.list()] == [ONE.id]


def test_what_killed_workers_left_goes_after_a_day(workers: Workers, engine: Engine) -> None:
    workers.present(ONE)
    age(engine, ONE, FORGET_MS + 1000)
    workers.present(OTHER)
    assert rows(engine) == [OTHER.id]
