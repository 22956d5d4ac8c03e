"""The keeper learns within a round what is no longer ours, and keeps the leases of the rest."""

from collections.abc import Iterable, Iterator, Mapping

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from shared.database.engine import now_ms
from shared.database.tables import jobs as jobs_table
from shared.jobs.job import Job, Lane
from shared.jobs.store import Jobs
from tests.conftest import MakesJobs
from tests.promises.programs import eventually
from worker import keeper as keeper_module
from worker.keeper import Held, Keeper, LeaseLost


@pytest.fixture(autouse=True)
def _quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "ROUND_SECONDS", 0.01)


@pytest.fixture
def running(jobs: Jobs, new_job: MakesJobs) -> Job:
    jobs.accept(new_job())
    (job,) = jobs.claim("tests:1", [Lane.INTERACTIVE], 1_000_000, idle=True)
    return job


@pytest.fixture
def keeper(jobs: Jobs) -> Iterator[Keeper]:
    keeper = Keeper(jobs, renew_seconds=0.01)
    keeper.start()
    yield keeper
    keeper.stop()


def test_a_canceled_attempt_stops_at_its_next_step(keeper: Keeper, jobs: Jobs, running: Job) -> None:
    held = keeper.hold(running)
    held.progress(1, 3)
    jobs.cancel("local", running.id)
    assert held.lost.wait(60)
    with pytest.raises(LeaseLost):
        held.progress(2, 3)


def test_a_lease_is_renewed_as_long_as_the_attempt_is_held(keeper: Keeper, jobs: Jobs, running: Job) -> None:
    keeper.hold(running)
    with jobs._engine.begin() as connection:
        connection.execute(update(jobs_table).values(lease_until=now_ms() - 5_000))  # it lapsed, but nobody reaped
    assert running.lease_until is not None
    eventually("the lease is new", lambda: (jobs.get(running.id) or running).lease_until >= running.lease_until)  # type: ignore[operator]


def test_progress_is_written_and_a_drop_ends_the_keeping(keeper: Keeper, jobs: Jobs, running: Job) -> None:
    held = keeper.hold(running)
    held.progress(2, 7)
    eventually("the progress is written", lambda: (jobs.get(running.id) or running).progress_done == 2)
    keeper.drop(held)
    assert keeper.all() == []


def test_what_was_dropped_is_no_longer_looked_after(keeper: Keeper, jobs: Jobs, running: Job, new_job: MakesJobs) -> None:
    def round_passes() -> None:
        jobs.accept(new_job())
        (other,) = jobs.claim("tests:1", [Lane.INTERACTIVE], 1_000_000, idle=True)
        jobs.cancel("local", other.id)
        assert keeper.hold(other).lost.wait(60)

    dropped = keeper.hold(running)
    keeper.drop(dropped)
    round_passes()  # one that had begun before may still know it
    jobs.cancel("local", running.id)
    round_passes()
    assert not dropped.lost.is_set()


class Counting(Jobs):
    """Remembers which rounds wrote and renewed; says when there were some."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__(jobs._engine, 30)
        self.rounds: list[tuple[list[tuple[str, int]], bool]] = []

    def keep(
        self, held: Mapping[tuple[str, int], tuple[int, int]], progressed: Iterable[tuple[str, int]], renew: bool
    ) -> frozenset[tuple[str, int]]:
        ours = super().keep(held, progressed, renew)
        self.rounds.append((list(progressed), renew))
        return ours


def test_progress_is_written_once_and_a_lease_is_not_renewed_before_its_time(jobs: Jobs, running: Job) -> None:
    counting = Counting(jobs)
    keeper = Keeper(counting, renew_seconds=3600)
    held = keeper.hold(running)
    held.progress(1, 2)
    keeper.start()
    eventually("there were some rounds", lambda: len(counting.rounds) >= 5)
    keeper.stop()
    assert counting.rounds[0] == ([held.key], False)
    assert set(map(str, counting.rounds[1:])) == {str(([], False))}


class Away(Jobs):
    """A database that is away a few times."""

    times = 3

    def keep(
        self, held: Mapping[tuple[str, int], tuple[int, int]], progressed: Iterable[tuple[str, int]], renew: bool
    ) -> frozenset[tuple[str, int]]:
        if self.times:
            self.times -= 1
            raise OperationalError("UPDATE", {}, Exception("away"))
        return super().keep(held, progressed, renew)


def test_while_the_database_is_away_nothing_is_lost_and_the_progress_is_written_later(jobs: Jobs, running: Job) -> None:
    away = Away(jobs._engine, 30)
    keeper = Keeper(away, renew_seconds=10)
    held = keeper.hold(running)
    held.progress(1, 2)
    keeper.start()
    eventually("the progress is written", lambda: (jobs.get(running.id) or running).progress_done == 1)
    assert not held.lost.is_set()
    keeper.stop()


def test_an_attempt_is_overdue_only_after_it_began_and_later_if_it_is_larger(running: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(running)
    assert not held.overdue()
    held.begin()
    assert held.began is not None
    began = held.began
    monkeypatch.setattr("worker.keeper.time.monotonic", lambda: began + 119)  # 60 s, and 60 for its one Mpx
    assert not held.overdue()
    monkeypatch.setattr("worker.keeper.time.monotonic", lambda: began + 121)
    assert held.overdue()


def test_a_part_of_an_attempt_may_have_a_limit_of_its_own(running: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(running)
    held.begin(900)
    assert held.began is not None
    began = held.began
    monkeypatch.setattr("worker.keeper.time.monotonic", lambda: began + 899)
    assert not held.overdue()
    monkeypatch.setattr("worker.keeper.time.monotonic", lambda: began + 901)
    assert held.overdue()
    held.begin()
    monkeypatch.setattr("worker.keeper.time.monotonic", lambda: began + 901 + 121)
    assert held.overdue(), "the next part has the limit of its pixels again"


def test_an_attempt_that_only_waits_for_the_storage_is_never_overdue(running: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(running)
    held.begin()
    assert held.began is not None
    began = held.began
    held.conclude()
    monkeypatch.setattr("worker.keeper.time.monotonic", lambda: began + 10_000)
    assert not held.overdue()


def test_a_worker_is_shown_from_its_start_on_also_while_it_holds_nothing_and_after_the_database_was_away(jobs: Jobs) -> None:
    said: list[str] = []

    def present() -> None:
        said.append("here")
        if len(said) == 2:
            raise OperationalError("UPDATE", {}, Exception("away"))

    keeper = Keeper(jobs, renew_seconds=0.01, present=present)
    keeper.start()
    eventually("it said so again", lambda: len(said) >= 4)
    keeper.stop()
