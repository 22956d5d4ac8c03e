"""What happens to the database."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from random import Random

import psycopg
from sqlalchemy import make_url

from tests import databases
from tests.faults.checker import Told
from tests.faults.row import PICTURES, Row, all_succeed, posted
from tests.faults.service import Service

AWAY_SECONDS = 6.0  # two leases


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


ROWS = (Row("the database away for two leases", ("P1", "P2", "P3"), away, slow=True),)
