"""What several tests stand on: a migrated database of their own, the job store on it, and new jobs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings
from sqlalchemy import Engine, event
from uuid_utils import uuid7

from shared.database.engine import open_database
from shared.database.migration import migrate
from shared.jobs.job import Kind, Lane, NewJob
from shared.jobs.store import Jobs

settings.register_profile("lacuna", deadline=None)  # no test is about time, and machines differ
settings.load_profile("lacuna")


class MakesJobs(Protocol):
    """What the fixture `new_job` is: a job to accept, with whatever the test cares about."""

    def __call__(self, **cares: Any) -> NewJob: ...


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file, made once: copying it is faster than migrating for each test."""
    path = tmp_path_factory.mktemp("migrated") / "lacuna.db"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


def _hurry(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF").close()  # no test cuts the power, and syncing takes half of their time


@pytest.fixture
def engine(migrated: Path, tmp_path: Path) -> Iterator[Engine]:
    path = shutil.copy(migrated, tmp_path / "lacuna.db")
    engine = open_database(f"sqlite:///{path}")
    event.listen(engine, "connect", _hurry)
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
