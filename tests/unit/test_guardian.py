"""What a dead worker held is put right at once: the suspect alone, its neighbours unharmed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError

from shared import children
from shared.children import Child
from shared.jobs.job import Job, Lane, State
from shared.jobs.store import Jobs
from shared.settings import Settings
from tests.conftest import MakesJobs
from worker import guardian


@pytest.fixture
def held(jobs: Jobs, new_job: MakesJobs) -> list[Job]:
    for _ in range(3):
        jobs.accept(new_job(pixels=100_000))
    return jobs.claim("tests:1", [Lane.INTERACTIVE], 1_000_000, idle=True)


def beat(held: list[Job], begun: list[Job], overdue: list[Job]) -> dict[str, Any]:
    """As the worker's last beat says it, having come through JSON."""
    named = {"held": held, "begun": begun, "overdue": overdue}
    return {name: [[job.id, job.token] for job in listed] for name, listed in named.items()}


def now(jobs: Jobs, job: Job) -> tuple[State, int, bool]:
    found = jobs.get(job.id)
    assert found is not None
    return found.state, found.attempts, found.alone


stop = Child.stop  # the real one

UNHARMED = (State.QUEUED, 0, False)
SUSPECT = (State.QUEUED, 1, True)


def test_what_had_begun_is_suspect_and_its_neighbours_get_their_attempt_back(jobs: Jobs, held: list[Job]) -> None:
    guardian._put_right(jobs, beat(held, begun=held[:1], overdue=[]))
    assert [now(jobs, job) for job in held] == [SUSPECT, UNHARMED, UNHARMED]


def test_where_one_is_overdue_the_others_that_had_begun_are_unharmed(jobs: Jobs, held: list[Job]) -> None:
    guardian._put_right(jobs, beat(held, begun=held, overdue=held[1:2]))
    assert [now(jobs, job) for job in held] == [UNHARMED, SUSPECT, UNHARMED]


def test_an_attempt_that_moved_on_is_left_alone(jobs: Jobs, held: list[Job]) -> None:
    first, second, _ = held
    jobs.cancel("local", first.id)
    jobs.release(second)
    jobs.claim("tests:2", [Lane.INTERACTIVE], 1_000_000, idle=True)
    guardian._put_right(jobs, beat(held, begun=held, overdue=[]))
    assert now(jobs, first)[0] is State.CANCELED
    assert now(jobs, second)[0] is State.RUNNING


def test_a_worker_that_never_beat_held_nothing(jobs: Jobs, held: list[Job]) -> None:
    guardian._put_right(jobs, {})
    assert {now(jobs, job)[0] for job in held} == {State.RUNNING}


def test_while_the_database_is_away_the_guardian_lives_and_leaves_it_to_the_leases(
    jobs: Jobs, held: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "get", away)
        guardian._put_right(jobs, beat(held, begun=held, overdue=[]))
    assert {now(jobs, job)[0] for job in held} == {State.RUNNING}


class Watched:
    """A worker process as the guardian sees it: after each wait it was silent so long and says this; then it ends."""

    process = SimpleNamespace(pid=0)

    def __init__(self, *moments: tuple[float, dict[str, Any]]) -> None:
        self.moments = list(moments)
        self.silent_seconds: float = 0
        self.last_beat: dict[str, Any] = {}

    def ended(self) -> int | None:
        return None if self.moments else 0

    def listen(self, _timeout_seconds: float) -> None:
        self.silent_seconds, self.last_beat = self.moments.pop(0)


WELL: tuple[float, dict[str, Any]] = (1, {"held": [["a job", 1]], "begun": [["a job", 1]], "overdue": []})
OVERDUE: tuple[float, dict[str, Any]] = (1, {**WELL[1], "overdue": [["a job", 1]]})
FROZEN: tuple[float, dict[str, Any]] = (31, WELL[1])


@pytest.mark.parametrize(
    ("moments", "unseen"), [([WELL] * 3, 0), ([WELL, OVERDUE, WELL], 1), ([FROZEN, WELL], 1)], ids=["well", "overdue", "frozen"]
)
def test_a_worker_is_watched_until_it_ends_is_overdue_or_falls_silent(moments: list[tuple[float, dict[str, Any]]], unseen: int) -> None:
    child = Watched(*moments)
    guardian._watch(cast(Child, child), "worker", 30, children.Asked())
    assert len(child.moments) == unseen


def test_a_guardian_that_stops_watches_no_longer() -> None:
    child, stopping = Watched(WELL), children.Asked()
    stopping.set()
    guardian._watch(cast(Child, child), "worker", 30, stopping)
    assert child.moments == [WELL]


def test_what_a_stopped_worker_still_held_is_given_back_and_nobody_is_suspect(
    jobs: Jobs, held: list[Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It beats once with what it holds, and is deaf to SIGTERM: the grace ends with SIGKILL."""
    said = json.dumps(beat(held, begun=held, overdue=[]))
    program = f"""
import json, signal, time
from shared import children
signal.signal(signal.SIGTERM, signal.SIG_IGN)
children.beat(lambda: json.loads({said!r}))
time.sleep(600)
"""
    monkeypatch.setattr(children, "python", lambda *_: [sys.executable, "-c", program])
    monkeypatch.setattr(guardian, "open_database", lambda _: jobs._engine)
    stopping = children.Asked()
    heard = Child.listen

    def listen(self: Child, timeout_seconds: float) -> None:
        heard(self, timeout_seconds)
        if self.last_beat:
            stopping.set()

    monkeypatch.setattr(Child, "listen", listen)
    monkeypatch.setattr(Child, "stop", lambda self, _: stop(self, 0.1))
    guardian.guard(Settings(home=tmp_path), "worker", stopping)
    assert [now(jobs, job) for job in held] == [UNHARMED] * 3
