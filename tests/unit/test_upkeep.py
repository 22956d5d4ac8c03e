"""What upkeep repairs beside leases and files: bells that nobody heard."""

from sqlalchemy import Engine, update

from shared.bells.memory import MemoryRinger
from shared.bells.ringer import RingFailed
from shared.database.tables import jobs as rows
from shared.jobs.job import Lane
from shared.jobs.store import Jobs
from tests.conftest import MakesJobs
from worker.upkeep.ringer import ring_again


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
