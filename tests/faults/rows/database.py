"""What happens to the database."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from random import Random

import psutil
import psycopg
from sqlalchemy import make_url

from tests import databases
from tests.faults.checker import Told
from tests.faults.row import PICTURES, Repetition, Row, all_succeed, posted
from tests.faults.service import Service

AWAY_SECONDS = 6.0  # two leases
CLIENTS = 4


@contextmanager
def locked(service: Service) -> Iterator[None]:
    """SQLite, of which somebody else writes a long transaction."""
    with closing(sqlite3.connect(service.folder / "lacuna.db", isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def refusing(service: Service) -> Iterator[None]:
    """PostgreSQL, which ends every connection and takes no new one."""
    name = make_url(service.environ["LACUNA_DATABASE_URL"]).database
    with psycopg.connect(databases.start_server(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@contextmanager
def crashed(_service: Service) -> Iterator[None]:
    """PostgreSQL, which ends at once, and has to recover when it is started again."""
    with databases.crashed():
        yield


@contextmanager
def frozen(_service: Service) -> Iterator[None]:
    """PostgreSQL, of which no process answers any more; and then all do."""
    with psycopg.connect(databases.start_server(), autocommit=True) as connection:
        postmaster = psutil.Process(connection.info.backend_pid).parent()
    assert postmaster is not None
    processes = [postmaster, *postmaster.children()]  # it first: then no others come
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


Fault = Callable[[Service], AbstractContextManager[None]]


def away(service: Service, random: Random) -> Told:
    """Gone for two leases, while pictures are in work: no healthy job loses an attempt, whoever posts meanwhile is told to come again."""
    job_ids = posted(service, random)
    time.sleep(random.random())
    with (locked if service.engine.dialect.name == "sqlite" else refusing)(service):
        until = time.monotonic() + AWAY_SECONDS
        answer = service.post(random.choice(PICTURES))
        complaints = () if answer.status_code == 503 else (f"a POST without a database was answered with {answer.status_code}",)
        time.sleep(max(0.0, until - time.monotonic()))
    told = all_succeed([*job_ids, *posted(service, random, 1)], 1)
    return Told(told.posted, told.over, attempts=told.attempts, complaints=complaints)


def under_load(fault: Fault) -> Repetition:
    """The same, with pictures in work and clients that post and insist all the while."""

    def once(service: Service, random: Random) -> Told:
        job_ids = posted(service, random)
        seeds = [random.randrange(1000) for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as clients:
            posting = [clients.submit(posted, service, Random(seed), 3) for seed in seeds]  # noqa: S311  # to be repeated
            time.sleep(random.random())
            with fault(service):
                time.sleep(AWAY_SECONDS)
        job_ids += [job_id for some in posting for job_id in some.result()]
        return all_succeed([*job_ids, *posted(service, random, 1)], 1)

    return once


PROMISES = ("P1", "P2", "P3")

ROWS = (
    Row("the database away for two leases", PROMISES, away, slow=True),
    Row(
        "PostgreSQL crashed under load, and back after two leases",
        PROMISES,
        under_load(crashed),
        slow=True,
        long_only=True,
        databases=("postgresql",),
    ),
    Row("PostgreSQL frozen for two leases under load", PROMISES, under_load(frozen), slow=True, long_only=True, databases=("postgresql",)),
)
