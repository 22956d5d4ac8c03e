"""What several tests stand on: a migrated database of their own, the job store on it, and new jobs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings
from sqlalchemy import Engine
from uuid_utils import uuid7

from shared.database.engine import open_database
from shared.database.migration import migrate
from shared.jobs.job import Kind, Lane, NewJob
from shared.jobs.store import Jobs
from tests.databases import Prepared, hurried

settings.register_profile("lacuna", deadline=None)  # no test is about time, and machines differ
settings.load_profile("lacuna")


class MakesJobs(Protocol):
    """What the fixture `new_job` is: a job to accept, with whatever the test cares about."""

    def __call__(self, **cares: Any) -> NewJob: ...


MIGRATED = Prepared(migrate)


@pytest.fixture(scope="session")
def database() -> str:
    """The kind of database. Contract suites run on every kind (tests/contracts/conftest.py)."""
    return "sqlite"


@pytest.fixture
def engine(database: str, tmp_path: Path) -> Iterator[Engine]:
    with MIGRATED.taken(database, tmp_path) as url:
        engine = hurried(open_database(url))
        yield engine
        engine.dispose()


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    return Jobs(engine, lease_seconds=30)


@pytest.fixture
def new_job() -> MakesJobs:
    def make(**cares: Any) -> NewJob:
        job_id = str(uuid7())
        values: dict[str, Any] = {
            "id": job_id, "owner_id": "local", "kind": Kind.RESTORE, "lane": Lane.INTERACTIVE, "task": "denoise", "model_name": "denoise",
            "model_version": 1, "input": {"key": f"{job_id[-2:]}/{job_id}/input"}, "params": {}, "pixels": 1_000_000, "max_attempts": 3,
            "request_id": "a-request",
        }  # fmt: skip
        return NewJob(**{**values, **cares})

    return make
