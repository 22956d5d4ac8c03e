"""The job store keeps the table of moves in shared/jobs/job.py, whoever calls it, in whatever order, from however many threads."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, delete, event, insert, select, update
from sqlalchemy.exc import IntegrityError

from shared.database.engine import clock_ms, now_ms, open_database
from shared.database.tables import batches, flows, job_metrics, lanes, owners, reservations
from shared.database.tables import jobs as rows
from shared.errors import Outcome, Refused
from shared.jobs.job import MOVES, PREVIEWS, Job, Lane, Move, State, Success, blob_key, preview_part, result_part
from shared.jobs.store import LONGEST_DELAY_SECONDS, Jobs, Replay, Reservation
from tests.conftest import MakesJobs

PLENTY = 10**9  # free pixels
BROKEN = Outcome("image_corrupt", "The picture is damaged", "Its end is missing.", False)
PASSING = Outcome("internal", "Something went wrong on our side", "The disk did not answer.", True)


def rewrite(engine: Engine, job_id: str, **columns: Any) -> None:
    """Let time pass for a row, or put it where a test needs it."""
    with engine.begin() as connection:
        connection.execute(update(rows).where(rows.c.id == job_id).values(**columns))


def lapse(engine: Engine, job: Job) -> None:
    """The job's lease is over."""
    rewrite(engine, job.id, lease_until=now_ms() - 1)


def row(engine: Engine, job_id: str) -> dict[str, Any]:
    """Every column of a job's row."""
    with engine.begin() as connection:
        return dict(connection.execute(select(rows).where(rows.c.id == job_id)).one()._mapping)


def test_of_one_owner_what_waits_and_runs_is_counted_but_no_further_than_asked(jobs: Jobs, new_job: MakesJobs) -> None:
    running, waiting, _ = (jobs.accept(new_job()) for _ in range(3))
    assert [jobs.unfinished("local", limit) for limit in (1, 2, 3, 100)] == [1, 2, 3, 3]
    assert running.id in {job.id for job in jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True)}
    assert jobs.unfinished("local", 100) == 3
    jobs.cancel("local", waiting.id)
    assert jobs.unfinished("local", 100) == 2
    assert jobs.unfinished("anna", 100) == 0


def claimed(jobs: Jobs, lane: Lane = Lane.INTERACTIVE) -> Job:
    """The one job that is next."""
    (job,) = jobs.claim("w1", [lane], PLENTY, idle=True)
    return job


def success(job: Job, **cares: Any) -> Success:
    given: dict[str, Any] = {"result": {"bytes": 1}, "result_key": blob_key(job.id, result_part(job.token)), "notes": [], **cares}
    return Success(job, **given)


def now(jobs: Jobs, job: Job) -> Job:
    found = jobs.get(job.id)
    assert found is not None
    return found


def brought_to(state: State, jobs: Jobs, new_job: MakesJobs) -> Job:
    """A job in that state, as its last worker would know it."""
    accepted = jobs.accept(new_job())
    if state is State.QUEUED:
        return accepted
    job = claimed(jobs)
    if state is State.SUCCEEDED:
        jobs.succeed([success(job)])
    elif state is State.FAILED:
        jobs.fail(job, BROKEN)
    elif state is State.CANCELED:
        jobs.cancel("local", job.id)
    found = now(jobs, job)
    assert found.state is state
    return found


# each move as its caller makes it: truthy if it touched the job
MAKE: dict[Move, Callable[[Jobs, Job], object]] = {
    Move.CLAIM: lambda jobs, job: jobs.claim("w2", list(Lane), PLENTY, idle=True),
    Move.RENEW: lambda jobs, job: jobs.keep({(job.id, job.token): (1, 2)}, [(job.id, job.token)], renew=True),
    Move.SUCCEED: lambda jobs, job: jobs.succeed([success(job)]),
    Move.FAIL: lambda jobs, job: jobs.fail(job, BROKEN),
    Move.RETRY: lambda jobs, job: jobs.retry(job, PASSING, delay_seconds=1),
    Move.RELEASE: lambda jobs, job: jobs.release(job),
    Move.REAP: lambda jobs, job: jobs.reap(),
    Move.CANCEL: lambda jobs, job: jobs.cancel(job.owner_id, job.id),
}
LEGAL = [(move, state) for move in Move for state in State if state in MOVES[move][0]]
ILLEGAL = [(move, state) for move in Move for state in State if state not in MOVES[move][0]]
WRITES_OF_AN_ATTEMPT = [Move.RENEW, Move.SUCCEED, Move.FAIL, Move.RETRY, Move.RELEASE]


# -- the table of moves -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("move", "state"), LEGAL)
def test_a_legal_move_leads_where_the_table_says(move: Move, state: State, jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job = brought_to(state, jobs, new_job)
    if move is Move.REAP:
        lapse(engine, job)
    assert MAKE[move](jobs, job)
    assert now(jobs, job).state in MOVES[move][1]


@pytest.mark.parametrize(("move", "state"), ILLEGAL)
def test_an_illegal_move_touches_nothing(move: Move, state: State, jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job = brought_to(state, jobs, new_job)
    before = row(engine, job.id)
    assert not MAKE[move](jobs, job)
    assert row(engine, job.id) == before


def _canceled(jobs: Jobs, engine: Engine, job: Job) -> None:
    jobs.cancel("local", job.id)


def _reaped(jobs: Jobs, engine: Engine, job: Job) -> None:
    lapse(engine, job)
    jobs.reap()


def _claimed_by_another(jobs: Jobs, engine: Engine, job: Job) -> None:
    _reaped(jobs, engine, job)
    rewrite(engine, job.id, due_at=now_ms())
    assert claimed(jobs).token == job.token + 1


def _released_and_claimed_again(jobs: Jobs, engine: Engine, job: Job) -> None:
    assert jobs.release(job)
    assert claimed(jobs).token == job.token + 1


@pytest.mark.parametrize("move", WRITES_OF_AN_ATTEMPT)
@pytest.mark.parametrize("lost", [_canceled, _reaped, _claimed_by_another, _released_and_claimed_again])
def test_an_attempt_that_lost_its_job_can_write_nothing(
    move: Move, lost: Callable[[Jobs, Engine, Job], None], jobs: Jobs, engine: Engine, new_job: MakesJobs
) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    lost(jobs, engine, job)
    before = row(engine, job.id)
    assert not MAKE[move](jobs, job)
    assert row(engine, job.id) == before


@pytest.mark.parametrize("move", [move for move in Move if move is not Move.RENEW])
def test_every_move_that_changes_the_state_raises_the_version(move: Move, jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job = brought_to(State.QUEUED if move is Move.CLAIM else State.RUNNING, jobs, new_job)
    if move is Move.REAP:
        lapse(engine, job)
    rewrite(engine, job.id, changed_at=0)
    MAKE[move](jobs, job)
    assert now(jobs, job).version == job.version + 1
    assert now(jobs, job).changed_at > 0


# -- what each move writes ----------------------------------------------------------------------------------------------------


def test_an_accepted_job_is_queued_with_nothing_counted(jobs: Jobs, new_job: MakesJobs) -> None:
    new = new_job(label="scans", pixels=2_000_000, params={"format": "png"})
    job = jobs.accept(new)
    assert (job.id, job.label, job.pixels, job.params, job.input) == (new.id, "scans", 2_000_000, {"format": "png"}, new.input)
    assert (job.state, job.token, job.attempts, job.version, job.alone) == (State.QUEUED, 0, 0, 1, False)
    assert (job.worker, job.lease_until, job.started_at, job.finished_at, job.result, job.error) == (None,) * 6
    assert job.due_at <= job.created_at == job.changed_at
    assert jobs.get(job.id) == job


def test_an_owner_that_does_not_exist_can_have_no_job(jobs: Jobs, new_job: MakesJobs) -> None:
    with pytest.raises(IntegrityError):
        jobs.accept(new_job(owner_id="nobody"))


def test_a_claim_raises_token_and_attempts_and_leases_for_the_stores_time(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    assert (job.state, job.token, job.attempts, job.worker) == (State.RUNNING, 1, 1, "w1")
    with engine.connect() as connection:
        later = connection.execute(select(clock_ms())).scalar_one()
    assert job.lease_until is not None
    assert job.changed_at + 30_000 <= job.lease_until <= later + 30_000, "it begins when it is written"
    assert job.started_at == job.changed_at
    assert now(jobs, job) == job


def test_a_second_claim_keeps_the_time_of_the_first_start_and_forgets_its_progress(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    first = claimed(jobs)
    jobs.keep({(first.id, first.token): (3, 12)}, [(first.id, first.token)], renew=False)
    rewrite(engine, first.id, started_at=1)
    jobs.release(first)
    second = claimed(jobs)
    assert (second.started_at, second.progress_done, second.progress_total) == (1, 0, 0)


def test_a_success_stores_its_result_and_ends_the_lease(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    figures = {"psnr": 30.0, "ssim": 0.9, "mse": 1.0, "rmse": 1.0, "mae": 0.5}
    metrics = {"protocol": "lacuna-1", "output": figures, "input": {**figures, "psnr": 20.0}}
    won = success(job, result={"bytes": 7, "sha256": "ab"}, notes=["palette_expanded"], metrics=metrics, units=12)
    assert jobs.succeed([won]) == {(job.id, job.token)}
    done = now(jobs, job)
    assert (done.state, done.result, done.result_key, done.notes) == (State.SUCCEEDED, won.result, won.result_key, ["palette_expanded"])
    assert (done.progress_done, done.progress_total, done.metrics) == (12, 12, metrics)
    assert (done.worker, done.lease_until, done.error) == (None, None, None)
    assert done.finished_at is not None
    with engine.begin() as connection:
        stored = connection.execute(select(job_metrics.c.of, job_metrics.c.psnr).order_by(job_metrics.c.of)).all()
    assert [tuple(found) for found in stored] == [("input", 20.0), ("output", 30.0)]


def test_of_a_group_only_the_attempts_that_are_still_ours_succeed(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    for _ in range(3):
        jobs.accept(new_job(pixels=100))
    group = jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True)
    jobs.cancel("local", group[1].id)
    metrics = {"protocol": "lacuna-1", "output": {"psnr": 1.0}}
    assert jobs.succeed([success(job, metrics=metrics) for job in group]) == {(group[0].id, 1), (group[2].id, 1)}
    assert [now(jobs, job).state for job in group] == [State.SUCCEEDED, State.CANCELED, State.SUCCEEDED]
    assert now(jobs, group[1]).result is None
    with engine.begin() as connection:
        assert set(connection.execute(select(job_metrics.c.job_id)).scalars()) == {group[0].id, group[2].id}


def test_of_a_lost_attempt_and_the_one_that_took_over_in_one_group_only_the_latter_succeeds(
    jobs: Jobs, engine: Engine, new_job: MakesJobs
) -> None:
    jobs.accept(new_job())
    lost = claimed(jobs)
    _reaped(jobs, engine, lost)
    rewrite(engine, lost.id, due_at=now_ms())
    ours = claimed(jobs)
    assert jobs.succeed([success(lost), success(ours)]) == {(ours.id, ours.token)}
    assert now(jobs, ours).result_key == success(ours).result_key


def test_an_empty_group_succeeds_with_nothing(jobs: Jobs) -> None:
    assert jobs.succeed([]) == frozenset()


def test_a_failure_says_why(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    assert jobs.fail(job, BROKEN)
    failed = now(jobs, job)
    assert failed.error == {"code": "image_corrupt", "title": BROKEN.title, "detail": BROKEN.detail, "retryable": False}
    assert (failed.worker, failed.lease_until, failed.result, failed.attempts) == (None, None, None, 1)
    assert failed.finished_at is not None


def test_a_retried_job_waits_for_its_delay_and_carries_no_error(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    assert jobs.retry(job, PASSING, delay_seconds=5)
    waiting = now(jobs, job)
    assert (waiting.state, waiting.attempts, waiting.token, waiting.error, waiting.finished_at) == (State.QUEUED, 1, 1, None, None)
    assert waiting.due_at - waiting.changed_at == 5_000
    assert jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True) == []
    rewrite(engine, job.id, due_at=now_ms())
    assert claimed(jobs).attempts == 2


def test_a_retry_with_no_attempt_left_fails_with_its_own_error(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job(max_attempts=1))
    job = claimed(jobs)
    assert jobs.retry(job, PASSING, delay_seconds=5)
    failed = now(jobs, job)
    assert failed.state is State.FAILED
    assert failed.error == {"code": "internal", "title": PASSING.title, "detail": PASSING.detail, "retryable": True}
    assert failed.finished_at is not None


@pytest.mark.parametrize(("was", "asked", "becomes"), [(False, False, False), (False, True, True), (True, False, True)])
def test_a_retry_makes_a_job_alone_but_never_less_alone(
    was: bool, asked: bool, becomes: bool, jobs: Jobs, engine: Engine, new_job: MakesJobs
) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    rewrite(engine, job.id, alone=was)
    jobs.retry(job, PASSING, delay_seconds=0, alone=asked)
    assert now(jobs, job).alone is becomes


def test_a_release_gives_the_attempt_back_but_never_the_token(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job(max_attempts=1))
    for token in (1, 2, 3):
        job = claimed(jobs)
        assert (job.token, job.attempts) == (token, 1)
        assert jobs.release(job)
        released = now(jobs, job)
        assert (released.state, released.token, released.attempts, released.alone) == (State.QUEUED, token, 0, False)


def test_a_reaped_job_runs_alone_after_a_second_and_keeps_its_attempt(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    lapse(engine, job)
    (reaped,) = jobs.reap()
    assert (reaped.state, reaped.alone, reaped.attempts, reaped.token, reaped.error) == (State.QUEUED, True, 1, 1, None)
    assert reaped.due_at - reaped.changed_at == 1_000
    assert now(jobs, job) == reaped


def test_a_job_that_lost_its_worker_in_every_attempt_fails_as_worker_lost(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job(max_attempts=3))
    for attempt in (1, 2, 3):
        job = claimed(jobs)
        assert job.attempts == attempt
        lapse(engine, job)
        jobs.reap()
        rewrite(engine, job.id, due_at=now_ms())
    lost = now(jobs, job)
    assert lost.state is State.FAILED
    assert lost.error is not None
    assert (lost.error["code"], lost.error["retryable"]) == ("worker_lost", True)
    assert jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True) == []


def test_the_reaper_leaves_a_lease_alone_that_has_not_lapsed(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    claimed(jobs)
    assert jobs.reap() == []


def test_a_cancel_is_final_and_raises_the_token(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    canceled = jobs.cancel("local", job.id)
    assert canceled is not None
    assert (canceled.state, canceled.token, canceled.worker, canceled.lease_until) == (State.CANCELED, job.token + 1, None, None)
    assert canceled.finished_at is not None
    assert now(jobs, job) == canceled


def test_a_job_is_deleted_by_its_owner_once_it_has_ended_and_leaves_no_figures(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job = jobs.accept(new_job())
    assert not jobs.delete("local", job.id)
    running = claimed(jobs)
    assert not jobs.delete("local", job.id)
    figures = {"psnr": 1.0, "ssim": 1.0, "mse": 1.0, "rmse": 1.0, "mae": 1.0}
    assert jobs.succeed([success(running, metrics={"protocol": "p", "output": figures, "input": figures})])
    assert not jobs.delete("another", job.id)
    assert jobs.delete("local", job.id)
    assert jobs.get(job.id) is None
    with engine.connect() as connection:
        assert connection.execute(select(job_metrics)).all() == []
    assert not jobs.delete("local", job.id)


def test_another_owner_can_neither_see_nor_cancel_a_job(jobs: Jobs, new_job: MakesJobs) -> None:
    job = jobs.accept(new_job())
    assert jobs.cancel("another", job.id) is None
    assert jobs.get(job.id, owner_id="another") is None
    assert jobs.get(job.id, owner_id="local") == job
    assert jobs.page("another", {}, 10, None) == []


# -- keeping ------------------------------------------------------------------------------------------------------------------


def test_keeping_writes_progress_of_what_progressed_and_tells_which_attempts_are_ours(jobs: Jobs, new_job: MakesJobs) -> None:
    for _ in range(3):
        jobs.accept(new_job(pixels=100))
    one, two, lost = jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True)
    jobs.cancel("local", lost.id)
    held = {(one.id, 1): (1, 4), (two.id, 1): (2, 4), (lost.id, 1): (3, 4)}
    assert jobs.keep(held, [(one.id, 1), (lost.id, 1), ("gone", 1)], renew=False) == {(one.id, 1), (two.id, 1)}
    assert [(now(jobs, job).progress_done, now(jobs, job).version - job.version) for job in (one, two)] == [(1, 1), (0, 0)]
    assert now(jobs, lost).progress_done == 0


def test_progress_of_a_lost_attempt_never_reaches_the_one_that_took_over(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    lost = claimed(jobs)
    jobs.release(lost)
    ours = claimed(jobs)
    held = {(ours.id, ours.token): (1, 4), (lost.id, lost.token): (3, 4)}
    assert jobs.keep(held, list(held), renew=False) == {(ours.id, ours.token)}
    assert now(jobs, ours).progress_done == 1


def test_keeping_nothing_is_nothing(jobs: Jobs) -> None:
    assert jobs.keep({}, [], renew=True) == frozenset()


def test_a_lease_that_lapsed_is_renewed_as_long_as_nobody_reaped(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    lapse(engine, job)
    assert jobs.keep({(job.id, job.token): (0, 0)}, [], renew=False) == {(job.id, job.token)}
    assert jobs.keep({(job.id, job.token): (0, 0)}, [], renew=True) == {(job.id, job.token)}
    assert jobs.reap() == []
    assert now(jobs, job).version == job.version


def test_keeping_without_renewing_leaves_the_lease_as_it_is(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    rewrite(engine, job.id, lease_until=123)
    jobs.keep({(job.id, job.token): (1, 2)}, [(job.id, job.token)], renew=False)
    assert now(jobs, job).lease_until == 123


# -- whose turn it is ---------------------------------------------------------------------------------------------------------


def drained(jobs: Jobs, lanes_in_order: list[Lane]) -> list[str]:
    """The ids in the order in which they are claimed, one worker after the other."""
    order: list[str] = []
    while group := jobs.claim("w1", lanes_in_order, PLENTY, idle=True):
        order += [job.id for job in group]
    return order


def test_interactive_work_comes_before_bulk_and_within_a_lane_the_smaller_turn_first(
    jobs: Jobs, engine: Engine, new_job: MakesJobs
) -> None:
    accepted = [jobs.accept(new_job(lane=lane)) for lane in (Lane.BULK, Lane.INTERACTIVE, Lane.BULK, Lane.INTERACTIVE)]
    for job, turn in zip(accepted, (1.0, 9.0, 0.5, 8.0), strict=True):
        rewrite(engine, job.id, turn=turn)
    bulk_1, interactive_9, bulk_05, interactive_8 = (job.id for job in accepted)
    assert drained(jobs, [Lane.INTERACTIVE, Lane.BULK]) == [interactive_8, interactive_9, bulk_05, bulk_1]


def test_a_worker_takes_nothing_from_a_lane_that_is_not_its_own(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job(lane=Lane.TRAIN))
    assert jobs.claim("w1", [Lane.INTERACTIVE, Lane.BULK], PLENTY, idle=True) == []


def test_equal_turns_go_by_id(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    accepted = [jobs.accept(new_job()).id for _ in range(4)]
    for job_id in accepted:
        rewrite(engine, job_id, turn=1.0)
    assert drained(jobs, [Lane.INTERACTIVE]) == sorted(accepted)


@pytest.mark.parametrize("done_before", [0, 20])
def test_fifty_jobs_of_one_owner_delay_a_newcomer_by_one_picture(done_before: int, jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    with engine.begin() as connection:
        connection.execute(insert(owners), [{"id": name, "created_at": 0} for name in ("busy", "newcomer")])
    for _ in range(50):
        jobs.accept(new_job(owner_id="busy"))
    for _ in range(done_before):
        claimed(jobs)
    accepted = [jobs.accept(new_job(owner_id="newcomer")).id for _ in range(3)]
    order = drained(jobs, [Lane.INTERACTIVE])
    assert [order.index(job_id) for job_id in accepted] <= [1, 3, 5]


def test_a_flow_that_was_quiet_has_saved_nothing_up(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    with engine.begin() as connection:
        connection.execute(insert(owners).values(id="quiet", created_at=0))
    for _ in range(10):
        jobs.accept(new_job())
    for _ in range(5):
        claimed(jobs)
    quiet = [jobs.accept(new_job(owner_id="quiet")).id for _ in range(5)]
    order = drained(jobs, [Lane.INTERACTIVE])
    assert set(order[:4]) - set(quiet), "the quiet owner took a whole run of turns at once"


def test_a_turn_is_the_cost_behind_the_later_of_lane_and_flow(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    cost = new_job().cost_mpx
    turns = [jobs.accept(new_job()).turn for _ in range(3)]
    assert turns == pytest.approx([cost, 2 * cost, 3 * cost])
    with engine.begin() as connection:
        connection.execute(update(lanes).where(lanes.c.name == Lane.INTERACTIVE).values(v=100.0))
    assert [jobs.accept(new_job()).turn for _ in range(2)] == pytest.approx([100 + cost, 100 + 2 * cost])


@pytest.mark.parametrize("newest_first", [False, True])
def test_what_is_canceled_while_it_waits_gives_its_turns_back(newest_first: bool, jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    with engine.begin() as connection:
        connection.execute(insert(owners).values(id="bert", created_at=0))
    for _ in range(10):
        jobs.accept(new_job())
    canceled = [jobs.accept(new_job(owner_id="bert")).id for _ in range(5)]
    for job_id in canceled[:: -1 if newest_first else 1]:
        jobs.cancel("bert", job_id)
    again = jobs.accept(new_job(owner_id="bert"))
    assert jobs.position(again) == 1, "it waits behind what was canceled"


def test_a_flow_goes_on_behind_the_last_of_it_that_still_waits(jobs: Jobs, new_job: MakesJobs) -> None:
    first, second, third, fourth = (jobs.accept(new_job()) for _ in range(4))
    jobs.cancel("local", second.id)
    jobs.cancel("local", fourth.id)
    assert jobs.accept(new_job()).turn == fourth.turn, "not directly behind the third"
    assert [job.id for job in (first, third)] == drained(jobs, [Lane.INTERACTIVE])[:2]


def test_a_cancel_never_puts_a_flow_before_the_turn_last_claimed(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    back = jobs.accept(new_job())
    jobs.release(claimed(jobs))
    with engine.begin() as connection:
        connection.execute(update(lanes).where(lanes.c.name == Lane.INTERACTIVE).values(v=100.0))
    last = jobs.accept(new_job())
    jobs.cancel("local", last.id)
    with engine.begin() as connection:
        assert connection.execute(select(flows.c.last_turn)).scalar_one() == 100.0, f"{back.turn} waits, but that is long past"


def test_the_lane_remembers_the_largest_turn_claimed(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    first, second = jobs.accept(new_job()), jobs.accept(new_job())

    def lane_v() -> float:
        with engine.begin() as connection:
            return float(connection.execute(select(lanes.c.v).where(lanes.c.name == Lane.INTERACTIVE)).scalar_one())

    assert lane_v() == 0
    claimed(jobs)
    assert lane_v() == first.turn
    claimed(jobs)
    assert lane_v() == second.turn
    jobs.retry(now(jobs, first), PASSING, delay_seconds=0)
    claimed(jobs)
    assert lane_v() == second.turn


def test_small_pictures_are_claimed_as_a_group_of_at_most_sixteen(jobs: Jobs, new_job: MakesJobs) -> None:
    accepted = [jobs.accept(new_job(pixels=1_000)).id for _ in range(20)]
    group = jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True)
    assert [job.id for job in group] == accepted[:16]
    assert {(job.state, job.token, job.attempts) for job in group} == {(State.RUNNING, 1, 1)}
    assert len(jobs.claim("w2", [Lane.INTERACTIVE], PLENTY, idle=True)) == 4


def test_what_must_run_alone_is_never_grouped(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    accepted = [jobs.accept(new_job(pixels=1_000)).id for _ in range(4)]
    rewrite(engine, accepted[1], alone=True)
    groups = [[job.id for job in jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True)] for _ in range(3)]
    assert groups == [accepted[:1], accepted[1:2], accepted[2:]]


def test_a_picture_that_does_not_fit_yet_is_not_overtaken_by_smaller_ones_of_its_lane(jobs: Jobs, new_job: MakesJobs) -> None:
    large = jobs.accept(new_job(pixels=5_000_000))
    jobs.accept(new_job(pixels=1_000))
    assert jobs.claim("w1", [Lane.INTERACTIVE], 4_000_000, idle=False) == []
    assert jobs.claim("w1", [Lane.INTERACTIVE], 5_000_000, idle=False)[0].id == large.id


def test_a_large_interactive_picture_is_not_starved_by_small_bulk_ones(jobs: Jobs, new_job: MakesJobs) -> None:
    large = jobs.accept(new_job(pixels=5_000_000))
    jobs.accept(new_job(pixels=1_000, lane=Lane.BULK))
    assert jobs.claim("w1", [Lane.INTERACTIVE, Lane.BULK], 4_000_000, idle=False) == []
    assert jobs.claim("w1", [Lane.INTERACTIVE, Lane.BULK], 5_000_000, idle=False)[0].id == large.id


def test_a_worker_that_does_nothing_else_takes_a_picture_of_any_size(jobs: Jobs, new_job: MakesJobs) -> None:
    large = jobs.accept(new_job(pixels=500_000_000))
    assert jobs.claim("w1", [Lane.INTERACTIVE], 1, idle=True)[0].id == large.id


@pytest.mark.parametrize(("state", "taken"), [("running", True), ("paused", False), ("canceled", False)])
def test_rows_of_a_paused_or_canceled_batch_wait(state: str, taken: bool, jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job = jobs.accept(new_job())
    with engine.begin() as connection:
        connection.execute(insert(batches).values(id="b", owner_id="local", state=state, params={}, created_at=0, changed_at=0))
    rewrite(engine, job.id, batch_id="b")
    assert bool(jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True)) is taken


def test_a_job_that_is_not_due_yet_lets_the_next_one_go_first(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    later, sooner = jobs.accept(new_job()), jobs.accept(new_job())
    rewrite(engine, later.id, due_at=now_ms() + 5_000)
    assert drained(jobs, [Lane.INTERACTIVE]) == [sooner.id]


# -- several at once ----------------------------------------------------------------------------------------------------------


T = TypeVar("T")


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What the calls return, each made in a thread of its own, all started together."""
    start = threading.Barrier(len(calls))

    def call(one: Callable[[], T]) -> T:
        start.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


@pytest.fixture
def stores(engine: Engine) -> Iterator[list[Jobs]]:
    """Eight stores on one file, each with connections of its own, as eight programs have."""
    engines = [open_database(str(engine.url)) for _ in range(8)]
    yield [Jobs(one, lease_seconds=30) for one in engines]
    for one in engines:
        one.dispose()


def test_claims_at_once_never_take_the_same_row_and_leave_none(stores: list[Jobs], jobs: Jobs, new_job: MakesJobs) -> None:
    accepted = [jobs.accept(new_job(pixels=200_000)).id for _ in range(100)]

    def worker(store: Jobs) -> list[str]:
        return drained(store, [Lane.INTERACTIVE])

    taken = [job_id for order in at_once([partial(worker, store) for store in stores]) for job_id in order]
    assert sorted(taken) == sorted(accepted)
    assert {now(jobs, job).token for job in jobs.page("local", {}, 100, None)} == {1}


def test_of_eight_moves_at_once_that_end_an_attempt_exactly_one_does(stores: list[Jobs], jobs: Jobs, new_job: MakesJobs) -> None:
    for _ in range(5):
        jobs.accept(new_job())
        job = claimed(jobs)
        ends = [Move.SUCCEED, Move.FAIL, Move.CANCEL, Move.RELEASE] * 2
        calls = [partial(MAKE[move], store, job) for move, store in zip(ends, stores, strict=True)]
        # a cancel may still find the job that was released just before: one end of the attempt, and one of the job
        won = [move for move, touched in zip(ends, at_once(calls), strict=True) if touched]
        assert won in ([Move.SUCCEED], [Move.FAIL], [Move.CANCEL]) or sorted(won) == [Move.CANCEL, Move.RELEASE]
        final = now(jobs, job)
        assert final.final
        assert (final.result is not None) == (won == [Move.SUCCEED])


def test_jobs_accepted_at_once_queue_behind_each_other(stores: list[Jobs], jobs: Jobs, new_job: MakesJobs) -> None:
    accepted = at_once([partial(store.accept, new_job()) for store in stores])
    turns = sorted(job.turn for job in accepted)
    assert turns == pytest.approx([1.01 * place for place in range(1, 9)])


def test_jobs_canceled_at_once_give_all_their_turns_back(stores: list[Jobs], jobs: Jobs, new_job: MakesJobs) -> None:
    first = jobs.accept(new_job())
    for _ in range(5):  # a race
        waiting = [jobs.accept(new_job()).id for _ in stores]
        at_once([partial(store.cancel, "local", job_id) for store, job_id in zip(stores, waiting, strict=True)])
        again = jobs.accept(new_job())
        assert again.turn == pytest.approx(first.turn + again.cost_mpx)
        jobs.cancel("local", again.id)


def test_a_key_reserved_eight_times_at_once_is_reserved_once(stores: list[Jobs]) -> None:
    def reserve(store: Jobs) -> str:
        try:
            return type(store.reserve("local", "k")).__name__
        except Refused as refused:
            return refused.code

    assert sorted(at_once([partial(reserve, store) for store in stores])) == ["Reservation"] + ["idempotency_in_progress"] * 7


def test_a_lapsed_attempt_is_reaped_once_however_many_reap(stores: list[Jobs], jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    lapse(engine, job)
    assert sum(len(reaped) for reaped in at_once([store.reap for store in stores])) == 1


# -- reading ------------------------------------------------------------------------------------------------------------------


def test_a_page_is_newest_first_and_its_last_job_is_the_cursor_of_the_next(jobs: Jobs, new_job: MakesJobs) -> None:
    accepted = [jobs.accept(new_job()).id for _ in range(5)]
    first = jobs.page("local", {}, 2, None)
    second = jobs.page("local", {}, 2, first[-1].id)
    third = jobs.page("local", {}, 2, second[-1].id)
    assert [job.id for page in (first, second, third) for job in page] == accepted[::-1]


def test_a_page_holds_only_what_its_filters_say(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job(label="a", lane=Lane.BULK))
    wanted = jobs.accept(new_job(label="a"))
    jobs.accept(new_job(label="b"))
    assert jobs.page("local", {"label": "a", "lane": "interactive", "state": "queued"}, 10, None) == [wanted]


def test_the_position_counts_the_queued_rows_of_the_lane_that_come_first(jobs: Jobs, new_job: MakesJobs) -> None:
    first, second, third = (jobs.accept(new_job()) for _ in range(3))
    jobs.accept(new_job(lane=Lane.BULK))
    assert [jobs.position(job) for job in (first, second, third)] == [0, 1, 2]
    running = claimed(jobs)
    assert jobs.position(running) is None
    assert [jobs.position(job) for job in (second, third)] == [0, 1]


def test_a_position_beyond_a_thousand_is_not_told(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    mine = jobs.accept(new_job())
    rewrite(engine, mine.id, turn=2.0)
    ahead = row(engine, mine.id) | {"turn": 1.0}
    with engine.begin() as connection:
        connection.execute(insert(rows), [ahead | {"id": f"ahead-{number}"} for number in range(1_000)])
    assert jobs.position(replace(mine, turn=2.0)) == 1_000
    with engine.begin() as connection:
        connection.execute(insert(rows).values(**ahead | {"id": "one-more"}))
    assert jobs.position(replace(mine, turn=2.0)) is None


def test_versions_are_told_of_the_jobs_that_exist(jobs: Jobs, new_job: MakesJobs) -> None:
    first, second = jobs.accept(new_job()), jobs.accept(new_job())
    claimed(jobs)
    assert jobs.versions([first.id, second.id, "gone"]) == {first.id: 2, second.id: 1}
    assert jobs.versions([]) == {}


def test_a_due_row_nobody_rang_for_is_unheard_once(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job, rung, not_due, running = (jobs.accept(new_job(lane=lane)) for lane in (Lane.BULK, Lane.BULK, Lane.BULK, Lane.INTERACTIVE))
    claimed(jobs)
    for old in (job, not_due, running):
        rewrite(engine, old.id, rung_at=now_ms() - 10_001)
    rewrite(engine, not_due.id, due_at=now_ms() + 5_000)
    assert jobs.unheard(older_than_seconds=10) == [(job.id, "bulk")]
    assert jobs.unheard(older_than_seconds=10) == []
    assert now(jobs, job).version == job.version
    assert rung.state is State.QUEUED


def test_unheard_rows_come_in_their_order_up_to_the_limit(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    accepted = [jobs.accept(new_job()).id for _ in range(5)]
    for job_id in accepted:
        rewrite(engine, job_id, rung_at=0)
    assert {job_id for job_id, _ in jobs.unheard(10, limit=3)} == set(accepted[:3])
    assert {job_id for job_id, _ in jobs.unheard(10, limit=3)} == set(accepted[3:])


def test_of_a_job_that_runs_or_just_ended_every_blob_is_kept(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    running, fresh, old, waiting = (
        brought_to(state, jobs, new_job) for state in (State.RUNNING, State.FAILED, State.SUCCEEDED, State.QUEUED)
    )
    for job in (running, old, waiting):
        rewrite(engine, job.id, changed_at=0)
    kept = jobs.kept_parts([running.id, fresh.id, old.id, waiting.id, "gone"], grace_seconds=3600)
    assert kept == {
        running.id: None,
        fresh.id: None,
        old.id: {old.input["key"], old.result_key, *(blob_key(old.id, preview_part(of, old.token)) for of in PREVIEWS)},
        waiting.id: {waiting.input["key"], *(blob_key(waiting.id, preview_part(of, waiting.token)) for of in PREVIEWS)},
    }


# -- Idempotency-Key ----------------------------------------------------------------------------------------------------------


def lapsed(engine: Engine, **columns: Any) -> None:
    with engine.begin() as connection:
        connection.execute(update(reservations).values(until=now_ms() - 1, **columns))


def reserved(jobs: Jobs, key: str = "k") -> Reservation:
    reservation = jobs.reserve("local", key)
    assert isinstance(reservation, Reservation)
    return reservation


def test_a_key_that_is_being_received_is_refused_until_its_request_is_over(jobs: Jobs) -> None:
    reserved(jobs)
    with pytest.raises(Refused) as refused:
        jobs.reserve("local", "k")
    assert refused.value.code == "idempotency_in_progress"
    assert refused.value.retry_after_s


def test_keys_of_different_owners_do_not_meet(jobs: Jobs, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(owners).values(id="another", created_at=0))
    reserved(jobs)
    assert isinstance(jobs.reserve("another", "k"), Reservation)


def test_a_fulfilled_key_replays_its_job(jobs: Jobs, new_job: MakesJobs) -> None:
    job = jobs.accept(new_job(), reserved(jobs), "f" * 64)
    assert jobs.reserve("local", "k") == Replay(job.id, "f" * 64)


def test_a_fulfilled_key_replays_also_when_its_time_is_over(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job = jobs.accept(new_job(), reserved(jobs), "f" * 64)
    lapsed(engine)
    assert jobs.reserve("local", "k") == Replay(job.id, "f" * 64)


def test_a_lapsed_reservation_is_taken_over_and_the_first_can_no_longer_fulfil(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    first = reserved(jobs)
    lapsed(engine)
    second = reserved(jobs)
    assert second.token > first.token
    late = new_job()
    with pytest.raises(Refused, match="idempotency_in_progress"):
        jobs.accept(late, first, "1" * 64)
    assert jobs.get(late.id) is None, "a refused request left a job behind"
    with engine.begin() as connection:
        assert connection.execute(select(flows)).all() == [], "a refused request took a turn"
    job = jobs.accept(new_job(), second, "2" * 64)
    assert jobs.reserve("local", "k") == Replay(job.id, "2" * 64)


def test_a_reservation_that_was_taken_over_can_neither_be_renewed_nor_dropped_by_the_first(jobs: Jobs, engine: Engine) -> None:
    first = reserved(jobs)
    lapsed(engine)
    reserved(jobs)
    jobs.drop_reservation(first)
    with pytest.raises(Refused):
        jobs.reserve("local", "k")
    lapsed(engine)
    jobs.renew_reservation(first)
    reserved(jobs)


def test_a_renewed_reservation_is_not_taken_over(jobs: Jobs, engine: Engine) -> None:
    reservation = reserved(jobs)
    lapsed(engine)
    jobs.renew_reservation(reservation)
    with pytest.raises(Refused):
        jobs.reserve("local", "k")


def test_a_dropped_reservation_frees_its_key(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.drop_reservation(reserved(jobs))
    again = reserved(jobs)
    jobs.accept(new_job(), again, "f" * 64)
    jobs.drop_reservation(again)
    assert isinstance(jobs.reserve("local", "k"), Replay), "a fulfilled key was dropped"


def test_a_key_is_swept_after_a_day_unless_its_job_is_there_or_its_request_lasts(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    day = 24 * 3_600_000
    kept_job = jobs.accept(new_job(), reserved(jobs, "job"), "f" * 64)
    gone_job = jobs.accept(new_job(), reserved(jobs, "gone"), "f" * 64)
    for key in ("abandoned", "lasting", "young"):
        reserved(jobs, key)
    with engine.begin() as connection:
        connection.execute(delete(rows).where(rows.c.id == gone_job.id))
    lapsed(engine, created_at=now_ms() - day - 1)
    with engine.begin() as connection:
        keyed = update(reservations)
        connection.execute(keyed.where(reservations.c.key == "lasting").values(until=now_ms() + 60_000))
        connection.execute(keyed.where(reservations.c.key == "young").values(created_at=now_ms()))
    assert jobs.sweep_reservations() == 2
    with engine.begin() as connection:
        assert set(connection.execute(select(reservations.c.key)).scalars()) == {"job", "lasting", "young"}
    assert jobs.reserve("local", "job") == Replay(kept_job.id, "f" * 64)


# -- a clock that was stepped back --------------------------------------------------------------------------------------------

STEPPED_MS = 600_000  # everything that was set before lies so much further ahead


def test_a_job_waits_no_longer_than_any_delay_when_the_clock_is_stepped_back(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    job = jobs.accept(new_job())
    rewrite(engine, job.id, due_at=now_ms() + STEPPED_MS, rung_at=now_ms() + STEPPED_MS)
    assert jobs.unheard(older_than_seconds=10) == [(job.id, "interactive")]
    assert jobs.unheard(older_than_seconds=10) == []
    assert claimed(jobs).id == job.id


def test_a_retry_is_put_off_by_no_more_than_the_longest_delay(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    job = claimed(jobs)
    jobs.retry(job, PASSING, delay_seconds=3_600)
    assert row(engine, job.id)["due_at"] <= jobs.now() + LONGEST_DELAY_SECONDS * 1000
    assert jobs.claim("w1", [Lane.INTERACTIVE], PLENTY, idle=True) == []


def test_a_lease_that_nobody_renewed_since_the_clock_was_stepped_back_lapses(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    for _ in range(2):
        jobs.accept(new_job(pixels=10_000_000))
    lost, _ = claimed(jobs), claimed(jobs)
    rewrite(engine, lost.id, lease_until=row(engine, lost.id)["lease_until"] + STEPPED_MS)
    assert [job.id for job in jobs.reap()] == [lost.id]


def test_a_lease_lapses_by_the_time_that_is_given(jobs: Jobs, new_job: MakesJobs) -> None:
    jobs.accept(new_job())
    claimed(jobs)
    now = jobs.now()
    assert jobs.reap(at=now + 29_000) == []
    assert len(jobs.reap(at=now + 31_000)) == 1


def test_a_key_is_free_again_when_the_clock_is_stepped_back(jobs: Jobs, engine: Engine) -> None:
    first = reserved(jobs)
    with engine.begin() as connection:
        connection.execute(update(reservations).values(until=reservations.c.until + STEPPED_MS))
    assert reserved(jobs).token > first.token
    with pytest.raises(Refused):
        jobs.reserve("local", "k")


# -- impossible rows ----------------------------------------------------------------------------------------------------------

IMPOSSIBLE: list[tuple[State, dict[str, Any]]] = [
    (State.QUEUED, {"state": "unknown"}),
    (State.QUEUED, {"state": "running"}),
    (State.QUEUED, {"lease_until": 1}),
    (State.QUEUED, {"worker": "w1"}),
    (State.QUEUED, {"finished_at": 1}),
    (State.QUEUED, {"error": {"code": "internal"}}),
    (State.QUEUED, {"result": {}}),
    (State.QUEUED, {"result_key": "k"}),
    (State.QUEUED, {"attempts": -1}),
    (State.QUEUED, {"attempts": 1}),
    (State.QUEUED, {"lane": "unknown"}),
    (State.QUEUED, {"kind": "unknown"}),
    (State.QUEUED, {"progress_done": 1}),
    (State.QUEUED, {"owner_id": "nobody"}),
    (State.RUNNING, {"lease_until": None}),
    (State.RUNNING, {"worker": None}),
    (State.RUNNING, {"attempts": 0}),
    (State.RUNNING, {"attempts": 4, "token": 4}),
    (State.RUNNING, {"started_at": None}),
    (State.RUNNING, {"state": "queued"}),
    (State.SUCCEEDED, {"result": None}),
    (State.SUCCEEDED, {"result_key": None}),
    (State.SUCCEEDED, {"finished_at": None}),
    (State.SUCCEEDED, {"state": "failed"}),
    (State.FAILED, {"error": None}),
    (State.CANCELED, {"finished_at": None}),
    (State.CANCELED, {"state": "queued"}),
]


@pytest.mark.parametrize(("state", "columns"), IMPOSSIBLE, ids=str)
def test_the_database_refuses_an_impossible_row(
    state: State, columns: dict[str, Any], jobs: Jobs, engine: Engine, new_job: MakesJobs
) -> None:
    job = brought_to(state, jobs, new_job)
    with pytest.raises(IntegrityError):
        rewrite(engine, job.id, **columns)


def test_a_reservation_with_a_job_and_no_fingerprint_is_refused(jobs: Jobs, engine: Engine) -> None:
    reserved(jobs)
    with pytest.raises(IntegrityError):
        lapsed(engine, job_id="j")


def test_keeping_reaping_and_canceling_find_their_rows_by_an_index(jobs: Jobs, engine: Engine, new_job: MakesJobs) -> None:
    waiting = jobs.accept(new_job())
    seen: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, parameters, *_: seen.append((statement, parameters)))
    jobs.keep({("a", 1): (1, 2), ("b", 2): (0, 2)}, [("a", 1)], renew=True)
    jobs.reap()
    jobs.cancel("local", waiting.id)
    told = [(statement, parameters) for statement, parameters in seen if statement.startswith(("UPDATE", "SELECT"))]
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # a table of no rows is read from end to end, if it may be
            connection.exec_driver_sql("SET enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        plans = [str(row[-1]) for statement, parameters in told for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)]
    assert len(plans) >= 3
    whole = [plan for plan in plans if "SCAN jobs" in plan or "Seq Scan on jobs" in plan]
    # ix_jobs_leases from end to end is no more than the running ones
    assert not [plan for plan in whole if "ix_jobs_leases" not in plan], "every second, in a table of a hundred thousand"
    assert [plan for plan in plans if "ix_jobs_flow" in plan], "a cancel reads all that its owner has waiting"


def test_canceling_a_batch_does_not_sort_all_that_is_left_of_it_for_each_chunk(jobs: Jobs, engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("the plans of PostgreSQL depend on how many rows there are")
    seen: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, parameters, *_: seen.append((statement, parameters)))
    jobs.cancel_batch("b")
    told = [(statement, parameters) for statement, parameters in seen if statement.startswith("SELECT")]
    with engine.connect() as connection:
        plans = [str(row[-1]) for made, given in told for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {made}", given)]
    chunk = next(number for number, plan in enumerate(plans) if "ix_jobs_batch_state" in plan)
    assert not [plan for plan in plans[chunk:] if "TEMP B-TREE" in plan], plans


def test_where_one_runs_alone_already_others_like_it_are_passed_over(jobs: Jobs, new_job: MakesJobs) -> None:
    suspect = jobs.accept(new_job())
    (claimed,) = jobs.claim("w", [Lane.INTERACTIVE], 10**9, idle=True)
    jobs.retry(claimed, Outcome("worker_lost", "", "", retryable=True), 0, alone=True)
    other = jobs.accept(new_job(pixels=10_000_000))
    assert [job.id for job in jobs.claim("w", [Lane.INTERACTIVE], 10**9, idle=True, alone=False)] == [other.id]
    assert jobs.claim("w", [Lane.INTERACTIVE], 10**9, idle=True, alone=False) == []
    assert [job.id for job in jobs.claim("w", [Lane.INTERACTIVE], 10**9, idle=True)] == [suspect.id]
