"""How long a job will take, as far as that can be known."""

from typing import Any

import pytest

from api.estimates import running, waiting
from shared.jobs.job import FIELDS, Job, State
from shared.jobs.store import InWork, Load

RATES = {("denoise", 1): 2.0}  # seconds per megapixel


def job(**cares: Any) -> Job:
    known: dict[str, Any] = dict.fromkeys(FIELDS) | {
        "state": State.QUEUED, "lane": "interactive", "model_name": "denoise", "model_version": 1, "params": {}, "pixels": 990_000,
        "attempts": 0, "turn": 1.0, "progress_done": 0, "progress_total": 0, "changed_at": 0,
    }  # fmt: skip
    return Job(**{**known, **cares})


def load(**cares: Any) -> Load:
    known: dict[str, Any] = {
        "now": 0,
        "rates": RATES,
        "claimed": {"interactive": 0.0, "bulk": 0.0, "train": 0.0},
        "waiting": [],
        "running": [],
    }
    return Load(**{**known, **cares})


def at_work(**cares: Any) -> Job:
    return job(**{"state": State.RUNNING, "token": 1, "started_at": 0, **cares})


def test_a_job_that_waits_takes_what_is_before_it_and_itself() -> None:
    behind = [("interactive", 5.0)]
    assert waiting(job(turn=1.0), load(waiting=behind), 1) == pytest.approx(2.0)
    assert waiting(job(turn=4.0), load(waiting=behind), 1) == pytest.approx(8.0)
    assert waiting(job(turn=4.0), load(waiting=behind), 4) == pytest.approx(2.0)
    assert waiting(job(turn=4.0), load(waiting=behind, claimed={"interactive": 3.0}), 1) == pytest.approx(2.0)


def test_the_jobs_of_other_flows_count_as_far_as_they_come_before_it() -> None:
    behind = [("interactive", 4.0), ("interactive", 3.0), ("interactive", 100.0), ("train", 50.0)]
    assert waiting(job(turn=4.0), load(waiting=behind), 1) == pytest.approx(2 * (4 + 3 + 4))


def test_what_may_wait_waits_for_all_that_may_not() -> None:
    behind = [("interactive", 10.0), ("bulk", 4.0)]
    assert waiting(job(lane="bulk", turn=4.0), load(waiting=behind), 1) == pytest.approx(2 * (10 + 4))
    assert waiting(job(turn=10.0), load(waiting=behind), 1) == pytest.approx(2 * 10)


def test_what_is_in_work_is_before_what_waits_and_takes_turns_with_what_runs() -> None:
    beside = [InWork("a", "bulk", "here", 6.0), InWork("b", "interactive", "there", 0.5), InWork("c", "train", "other", 50.0)]
    assert waiting(job(turn=1.0), load(running=beside), 1) == pytest.approx(2 * (1 + 6.5))
    ours = InWork("x", "interactive", "here", 1.0)
    assert running(at_work(id="x", worker="here"), load(running=[*beside, ours])) == pytest.approx(2 * (1 + 1))
    assert running(at_work(id="x", worker="there"), load(running=[*beside, ours])) == pytest.approx(2 * (1 + 0.5))


def test_without_a_rate_or_a_worker_nothing_is_known() -> None:
    behind = [("interactive", 5.0)]
    assert waiting(job(), load(waiting=behind, rates={}), 1) is None
    assert waiting(job(), load(waiting=behind), 0) is None
    assert waiting(job(model_version=2), load(waiting=behind), 1) is None
    assert running(at_work(), load(rates={})) is None


def test_a_job_that_runs_goes_by_its_own_pace_once_a_part_is_done() -> None:
    quarter = at_work(started_at=1_000, changed_at=4_000, progress_done=3, progress_total=12)
    assert running(quarter, load(now=4_000, rates={})) == pytest.approx(9.0)
    assert running(quarter, load(now=6_000, rates={})) == pytest.approx(7.0)


def test_before_a_part_is_done_and_in_later_attempts_it_goes_by_its_model_s_rate() -> None:
    assert running(at_work(started_at=1_000, changed_at=1_500, progress_total=1), load(now=2_500)) == pytest.approx(0.5)
    again = at_work(token=2, started_at=1_000, changed_at=90_000, progress_done=1, progress_total=2)
    assert running(again, load(now=90_250)) == pytest.approx(0.75)
