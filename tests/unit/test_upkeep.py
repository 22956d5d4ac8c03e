"""What upkeep repairs beside leases and files: bells that nobody heard."""

import contextlib
from pathlib import Path

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import OperationalError

from shared.bells.memory import MemoryRinger
from shared.bells.ringer import RingFailed
from shared.blobs.local import LocalBlobs
from shared.database.tables import jobs as rows
from shared.datasets.store import Datasets
from shared.jobs.job import Job, Lane
from shared.jobs.store import Jobs
from shared.models.store import Models
from tests.conftest import MakesJobs
from worker.upkeep.reaper import Reaper
from worker.upkeep.ringer import ring_again
from worker.upkeep.sweeper import sweep


def test_a_due_row_whose_bell_was_lost_is_rung_for_again_in_its_lane_and_once_a_round(
    jobs: Jobs, engine: Engine, new_job: MakesJobs
) -> None:
    waiting = {(job.lane, job.id) for job in (jobs.accept(new_job(lane=lane)) for lane in (Lane.INTERACTIVE, Lane.BULK))}
    with engine.begin() as connection:
        connection.execute(update(rows).values(rung_at=0))
    fresh = jobs.accept(new_job())
    ringer = MemoryRinger()
    assert ring_again(jobs, ringer, older_than_seconds=10) == 2
    assert set(ringer.rung) == waiting
    assert ring_again(jobs, ringer, older_than_seconds=10) == 0
    assert fresh.id not in {job_id for _, job_id in ringer.rung}


class Away:
    """A ringer whose server is away."""

    calls = 0

    def ring(self, lane: str, job_id: str) -> None:
        self.calls += 1
        raise RingFailed("away")


def test_while_redis_is_away_upkeep_tries_one_bell_and_goes_on_with_its_round(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    for _ in range(3):
        jobs.accept(new_job())
    with engine.begin() as connection:
        connection.execute(update(rows).values(rung_at=0))
    away = Away()
    ring_again(jobs, away, older_than_seconds=10)
    assert away.calls == 1


def test_a_file_that_is_no_blob_is_left_alone_and_stops_nobody(jobs: Jobs, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    for stray in (".DS_Store", "ab/.DS_Store"):
        path = tmp_path / "blobs" / stray
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"Finder was here")
    draft = blobs.draft()
    draft.write(b"an orphan")
    draft.place("ab/01900000-0000-7000-8000-0000000000ab/upload")
    assert sweep(jobs, Models(jobs._engine), Datasets(jobs._engine), blobs, grace_seconds=-1) == 1
    assert (tmp_path / "blobs" / ".DS_Store").exists()


def test_while_the_database_is_away_no_pass_counts_and_nothing_is_reaped_at_once_when_it_is_back(jobs: Jobs) -> None:
    clock = [0.0]
    reaper = Reaper(jobs, lease_seconds=30, tick_seconds=5, steady=lambda: clock[0])
    away = True
    passes: list[float] = []

    def reap(pardon: bool, at: int) -> list[Job]:
        if away:
            raise OperationalError("UPDATE", {}, Exception("away"))
        if not pardon:
            passes.append(clock[0])
        return []

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "reap", reap)
        for _ in range(12):
            clock[0] += 10
            with contextlib.suppress(OperationalError):
                reaper.reap()
        away = False
        for _ in range(12):
            clock[0] += 5
            reaper.reap()
    assert passes[0] >= 120 + 30


@pytest.mark.parametrize("step_ms", [600_000, -600_000])
def test_after_the_clock_of_the_database_was_stepped_nothing_is_reaped_for_one_lease(
    jobs: Jobs, new_job: MakesJobs, monkeypatch: pytest.MonkeyPatch, step_ms: int
) -> None:
    job = jobs.accept(new_job())
    jobs.claim("w", [Lane.INTERACTIVE], 10**9, idle=True)
    right, stepped_ms, steady = jobs.now, 0, 0.0
    monkeypatch.setattr(jobs, "now", lambda: right() + stepped_ms)
    reaper = Reaper(jobs, lease_seconds=30, tick_seconds=5, steady=lambda: steady)
    assert reaper.reap() == []
    stepped_ms = step_ms
    while steady < 30:
        assert reaper.reap() == [], "its worker lives, and could not renew by the new time yet"
        steady += 5
    assert [reaped.id for reaped in reaper.reap()] == [job.id], "a worker that has not renewed meanwhile is gone"


def test_what_lapses_by_a_step_between_the_look_at_the_clock_and_the_reaping_is_not_reaped(
    jobs: Jobs, engine: Engine, new_job: MakesJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.accept(new_job())
    jobs.claim("w", [Lane.INTERACTIVE], 10**9, idle=True)
    right = jobs.now

    def looked() -> int:
        now = right()
        with engine.begin() as connection:  # ten minutes later
            connection.execute(update(rows).values(lease_until=rows.c.lease_until - 600_000))
        return now - 600_000

    monkeypatch.setattr(jobs, "now", looked)
    assert Reaper(jobs, lease_seconds=30, tick_seconds=5).reap() == []
