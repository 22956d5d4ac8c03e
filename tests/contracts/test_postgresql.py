"""What only a server of databases can do to us: wait for each other in a ring, close connections, be slow to let go."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from shared.database.engine import AWAY, READ_ONLY, open_database
from shared.database.tables import jobs as rows
from shared.database.tables import owners
from shared.jobs.job import Job, Lane, Success, blob_key, result_part
from shared.jobs.store import Jobs
from tests.conftest import MakesJobs
from tests.databases import END_OTHERS

WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@pytest.fixture(scope="session")
def database() -> str:
    return "postgresql"


def two_running(jobs: Jobs, new_job: MakesJobs) -> tuple[Job, Job]:
    for _ in range(2):
        jobs.accept(new_job(pixels=1000))
    first, second = sorted(jobs.claim("w", [Lane.INTERACTIVE], 10**9, idle=True), key=lambda job: job.id)
    return first, second


def success(job: Job) -> Success:
    return Success(job, {"bytes": 1}, blob_key(job.id, result_part(job.token)), [])


def while_locked(engine: Engine, job: Job, *calls: Callable[[], Any]) -> list[Any]:
    """Start the calls one after the other, each once the one before waits for the lock on `job`; then let go; what they return."""
    with ThreadPoolExecutor(len(calls)) as pool, engine.connect() as holder, engine.connect() as looker:
        holder.execute(select(rows.c.id).where(rows.c.id == job.id).with_for_update())
        begun: list[Future[Any]] = []
        for call in calls:
            begun.append(pool.submit(call))
            while looker.execute(WAITING).scalar_one() < len(begun) and not begun[-1].done():
                looker.rollback()
        holder.rollback()
        return [future.result() for future in begun]


def test_keeping_and_committing_the_same_jobs_never_wait_for_each_other_in_a_ring(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    first, second = two_running(jobs, new_job)
    held = {(job.id, job.token): (1, 2) for job in (second, first)}
    kept, done = while_locked(
        engine, first, lambda: jobs.keep(held, list(held), renew=True), lambda: jobs.succeed([success(second), success(first)])
    )
    assert kept == frozenset(held)
    assert done == frozenset(held)


def test_reaping_passes_over_a_job_that_somebody_writes_just_now(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    first, second = two_running(jobs, new_job)
    with engine.begin() as connection:
        connection.execute(update(rows).values(lease_until=1))
    (reaped,) = while_locked(engine, first, jobs.reap)
    assert [job.id for job in reaped] == [second.id]


def test_claiming_passes_over_a_job_that_somebody_writes_just_now(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    first, second = (jobs.accept(new_job(pixels=1000)) for _ in range(2))
    (group,) = while_locked(engine, first, lambda: jobs.claim("w", [Lane.INTERACTIVE], 10**9, idle=True))
    assert [job.id for job in group] == [second.id]


def test_the_first_jobs_of_an_owner_may_come_at_once(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    with engine.begin() as connection:
        connection.execute(insert(owners).values(id="new", created_at=0))
    together = threading.Barrier(6)

    def accept(_: int) -> Job:
        together.wait()
        return jobs.accept(new_job(owner_id="new"))

    with ThreadPoolExecutor(6) as pool:
        turns = [job.turn for job in pool.map(accept, range(6))]
    assert len(set(turns)) == 6


def test_after_the_server_closed_every_connection_the_next_call_is_answered(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job = jobs.accept(new_job())
    other = open_database(engine.url.render_as_string(hide_password=False))
    with other.connect() as connection:
        connection.execute(text(END_OTHERS))
    other.dispose()
    assert jobs.get(job.id) == job


def test_a_server_that_is_not_there_is_away(engine: Engine) -> None:
    nowhere = open_database("postgresql+psycopg://lacuna@127.0.0.1:1/lacuna")
    with pytest.raises(AWAY):
        nowhere.connect()


def test_what_only_reads_cannot_write(engine: Engine) -> None:
    with engine.connect().execution_options(**READ_ONLY) as connection, pytest.raises(DBAPIError, match="read-only"):
        connection.execute(insert(owners).values(id="x", created_at=0))


def test_no_statement_waits_or_lasts_for_ever_whatever_the_server_says(engine: Engine) -> None:
    with engine.connect() as connection:
        for setting, value in {"lock_timeout": "5s", "statement_timeout": "1min", "transaction_isolation": "read committed"}.items():
            assert connection.execute(text(f"SHOW {setting}")).scalar_one() == value
