"""No owner has more jobs that have not ended than they may, and finding that out costs next to nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from api.quota import Quota
from shared.errors import Transient
from shared.jobs.job import Job
from shared.jobs.store import Jobs
from tests.promises import wiring
from tests.unit.test_loop import picture

Wanted = Callable[[], Job]


class Counted(Jobs):
    """A store that knows how often it was asked to count."""

    counts = 0

    def unfinished(self, owner_id: str, limit: int, but_of: str | None = None) -> int:
        self.counts += 1
        return super().unfinished(owner_id, limit)


@pytest.fixture
def home(tmp_path: Path) -> tuple[Counted, Wanted]:
    """A store, and what puts one more job into it."""
    ports = wiring.ports(tmp_path)
    jobs = Counted(ports.jobs._engine, 30)
    return jobs, lambda: wiring.submit(replace(ports, jobs=jobs), picture(4))


def full(quota: Quota, owner: str = "local") -> bool:
    try:
        quota.take(owner)
    except Transient as error:
        assert (error.code, error.retry_after_s) == ("too_many_jobs", 10)
        return True
    return False


def test_exactly_so_many_are_taken_and_few_of_them_are_counted(home: tuple[Counted, Wanted]) -> None:
    jobs, submit = home
    quota = Quota(jobs, 100)
    for _ in range(100):
        quota.take("local")
        submit()
    assert full(quota)
    assert jobs.counts <= 8, "the rows of the database are counted at nearly every POST"
    assert not full(quota, "anna"), "another owner's jobs count"


def test_who_has_no_room_is_not_counted_at_each_try_and_gets_in_when_a_job_has_ended(home: tuple[Counted, Wanted]) -> None:
    jobs, submit = home
    only = submit()
    patient, prompt = Quota(jobs, 1), Quota(jobs, 1, again_seconds=0)
    assert full(patient) and full(prompt)
    before = jobs.counts
    jobs.cancel("local", only.id)
    assert full(patient)
    assert jobs.counts == before
    assert not full(prompt)
