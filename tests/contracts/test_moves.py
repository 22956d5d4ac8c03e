"""The moves of a job, drawn by Hypothesis: in any order, several at once, and in whatever turns. `EXAMPLES` says how many are tried.

tests/contracts/test_jobs.py says what each move does; here no sequence of them may break what holds for all.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import Engine, delete, insert, select, update

from shared.database.engine import open_database
from shared.database.tables import flows, lanes, owners, reservations
from shared.database.tables import jobs as rows
from shared.errors import Outcome, Refused
from shared.jobs.job import FINAL, Job, Lane, Move, State, Success, blob_key, result_part
from shared.jobs.store import Jobs, Replay, Reservation
from tests.conftest import MakesJobs
from tests.databases import hurried

EXAMPLES = int(os.environ.get("EXAMPLES", "20"))  # of each property, on each kind of database
DRAWN = settings(max_examples=EXAMPLES, stateful_step_count=40, suppress_health_check=list(HealthCheck))

OWNERS = ("anna", "bert", "carla")
WORKERS = ("w1", "w2")
HOUR = 3_600  # seconds: whatever is put off so far comes in no test by itself
LONG_AGO = 1
SMALL, LARGE = 1_000, 2_000_000  # pixels; small ones go in groups
FREE = (SMALL, 500_000, 10**9)
BROKEN = Outcome("image_corrupt", "The picture is damaged", "Its end is missing.", False)
PASSING = Outcome("internal", "Something went wrong on our side", "The disk did not answer.", True)
IN_ORDER = [[Lane.INTERACTIVE, Lane.BULK], [Lane.BULK], [Lane.INTERACTIVE], [Lane.TRAIN, Lane.INTERACTIVE]]
VISIBLE = ("state", "progress_done", "progress_total", "result", "result_key", "error", "worker", "attempts", "alone")

ROUNDING = 1e-6  # megapixels


@pytest.fixture(autouse=True)
def _delays_may_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.jobs.store.LONGEST_DELAY_SECONDS", 2.0 * HOUR)


@pytest.fixture(autouse=True)
def _owners(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(owners), [{"id": name, "created_at": 0} for name in OWNERS])


def emptied(engine: Engine) -> None:
    """No job, no key and no turn taken: an example begins."""
    with engine.begin() as connection:
        for table in (reservations, rows, flows):
            connection.execute(delete(table))
        connection.execute(update(lanes).values(v=0.0))


def rewrite(engine: Engine, ids: Sequence[str], *conditions: Any, **columns: Any) -> None:
    """Let time pass for rows."""
    with engine.begin() as connection:
        connection.execute(update(rows).where(rows.c.id.in_(ids), *conditions).values(**columns))


@dataclass(frozen=True)
class Stored:
    """What the tables hold."""

    rows: dict[str, dict[str, Any]]  # every column of every job
    v: dict[str, float]  # of each lane
    last: dict[tuple[str, str], float]  # the last turn of each flow

    @classmethod
    def now(cls, engine: Engine) -> "Stored":
        with engine.connect() as connection:
            return cls(
                {one.id: dict(one._mapping) for one in connection.execute(select(rows))},
                {one.name: one.v for one in connection.execute(select(lanes))},
                {(one.owner_id, one.lane): one.last_turn for one in connection.execute(select(flows))},
            )


def success(job: Job, mark: object = None) -> Success:
    """What the attempt made; the mark tells it from what others made."""
    return Success(job, {"bytes": 1, "mark": mark}, blob_key(job.id, result_part(job.token)), [])


# -- in any order -------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """What a row must hold by the table of moves. The fields that are columns too have their names."""

    id: str
    owner_id: str
    lane: Lane
    pixels: int
    turn: float
    max_attempts: int
    state: State = State.QUEUED
    version: int = 1
    token: int = 0
    attempts: int = 0
    alone: bool = False
    worker: str | None = None
    progress_done: int = 0
    progress_total: int = 0
    result_key: str | None = None
    due: bool = True  # its delay is over
    lapsed: bool = False  # its lease is over
    error: str | None = None  # its code

    def queue_or_fail(self, code: str) -> None:
        """The attempt came to nothing: again after a while, if there may be another."""
        if self.attempts < self.max_attempts:
            self.change(State.QUEUED, due=False)
        else:
            self.change(State.FAILED, error=code)

    def change(self, state: State, **columns: Any) -> None:
        """A change of state: always seen, and a lease never outlives it."""
        self.state, self.version, self.worker, self.lapsed = state, self.version + 1, None, False
        for name, value in columns.items():
            setattr(self, name, value)


COLUMNS = [name for name in Row.__dataclass_fields__ if name in rows.c and name != "error"]


@dataclass
class Key:
    """An Idempotency-Key: how often it was taken over, and the job that fulfilled it."""

    token: int = 1
    job_id: str | None = None


class AnyOrder(RuleBasedStateMachine):
    """Every move, by attempts that are current, lost, or of jobs long gone; each answer and each row as the model says.

    Time passes only when a rule says so: leases and delays are an hour long.
    """

    jobs_: Bundle[str] = Bundle("jobs_")
    attempts: Bundle[Job] = Bundle("attempts")
    keys: Bundle[Reservation] = Bundle("keys")

    def __init__(self, engine: Engine, new_job: MakesJobs) -> None:
        super().__init__()
        emptied(engine)
        self.engine, self.new_job, self.jobs = engine, new_job, Jobs(engine, lease_seconds=HOUR)
        self.model: dict[str, Row] = {}
        self.given: dict[str, list[Job]] = {}  # the attempts of each job
        self.held_keys: dict[tuple[str, str], Key] = {}
        self.v: dict[str, float] = dict.fromkeys(Lane, 0.0)
        self.last: dict[tuple[str, str], float] = {}
        self.before: dict[str, dict[str, Any]] = {}
        self.touched: set[str] = set()  # what the step may have changed

    # accepting

    def _accept(self, owner: str, reservation: Reservation | None, cares: dict[str, Any]) -> str:
        new = self.new_job(owner_id=owner, **cares)
        job = self.jobs.accept(new, reservation, "f" * 64)
        self.last[owner, new.lane] = turn = max(self.v[new.lane], self.last.get((owner, new.lane), 0.0)) + new.cost_mpx
        self.model[job.id] = Row(job.id, owner, new.lane, new.pixels, turn, new.max_attempts)
        self.touched.add(job.id)
        return job.id

    cares = st.fixed_dictionaries({
        "lane": st.sampled_from([Lane.INTERACTIVE, Lane.INTERACTIVE, Lane.BULK]), "pixels": st.sampled_from([SMALL, 400_000, LARGE]),
        "params": st.sampled_from([{}, {"speed": "best"}]), "max_attempts": st.integers(1, 3),
    })  # fmt: skip

    @rule(target=jobs_, owner=st.sampled_from(OWNERS), cares=cares, count=st.integers(1, 3))
    def accept(self, owner: str, cares: dict[str, Any], count: int) -> Any:
        return multiple(*(self._accept(owner, None, cares) for _ in range(count)))

    @initialize(target=jobs_, some=st.lists(st.tuples(st.sampled_from(OWNERS), cares), min_size=3, max_size=6))
    def begin(self, some: list[tuple[str, dict[str, Any]]]) -> Any:
        return multiple(*(self._accept(owner, None, cares) for owner, cares in some))

    @rule(target=keys, owner=st.sampled_from(OWNERS[:2]), key=st.sampled_from("kl"), lapsed=st.booleans())
    def reserve(self, owner: str, key: str, lapsed: bool) -> Any:
        if lapsed:
            with self.engine.begin() as connection:
                named = (reservations.c.owner_id == owner, reservations.c.key == key)
                connection.execute(update(reservations).where(*named).values(until=LONG_AGO))
        known = self.held_keys.get((owner, key))
        try:
            answer = self.jobs.reserve(owner, key)
        except Refused as refused:
            assert refused.code == "idempotency_in_progress"
            assert known is not None
            assert (known.job_id, lapsed) == (None, False)
            return multiple()
        if known is not None and known.job_id is not None:
            assert answer == Replay(known.job_id, "f" * 64)
            return multiple()
        token = 1 if known is None else known.token + 1
        self.held_keys[owner, key] = Key(token)
        assert known is None or lapsed
        assert answer == Reservation(owner, key, token)
        return answer

    def _open(self, reservation: Reservation) -> Key | None:
        known = self.held_keys.get((reservation.owner_id, reservation.key))
        return known if known is not None and (known.token, known.job_id) == (reservation.token, None) else None

    @rule(target=jobs_, reservation=keys, cares=cares)
    def accept_with_a_key(self, reservation: Reservation, cares: dict[str, Any]) -> Any:
        known = self._open(reservation)
        try:
            job_id = self._accept(reservation.owner_id, reservation, cares)
        except Refused as refused:
            assert refused.code == "idempotency_in_progress"
            assert known is None
            return multiple()
        assert known is not None
        known.job_id = job_id
        return job_id

    @rule(reservation=keys)
    def drop_a_key(self, reservation: Reservation) -> None:
        self.jobs.drop_reservation(reservation)
        if self._open(reservation):
            del self.held_keys[reservation.owner_id, reservation.key]

    # the moves of attempts

    def _next(self, lanes_in_order: list[Lane], free: int, idle: bool, alone: bool) -> list[Row]:
        """The first that is due, and what may go with it."""
        for lane in lanes_in_order:
            waiting = [row for row in self.model.values() if row.lane == lane and row.state is State.QUEUED and row.due]
            due = sorted((row for row in waiting if alone or not row.alone), key=lambda row: (row.turn, row.id))
            if not due:
                continue
            first, *others = due
            if first.pixels > free and not idle:
                return []
            group = [first]
            for row in others[:15]:
                if first.alone or row.alone or sum(one.pixels for one in [*group, row]) > min(free, 1_000_000):
                    break
                group.append(row)
            return group
        return []

    @rule(target=attempts, worker=st.sampled_from(WORKERS))
    def claim_anything(self, worker: str) -> Any:
        return self._claim(worker, list(Lane), 10**9, idle=True, alone=True)

    @rule(target=attempts, worker=st.sampled_from(WORKERS), order=st.sampled_from(IN_ORDER), free=st.sampled_from(FREE),
          idle=st.booleans(), alone=st.booleans())  # fmt: skip
    def claim(self, worker: str, order: list[Lane], free: int, idle: bool, alone: bool) -> Any:
        return self._claim(worker, order, free, idle, alone)

    def _claim(self, worker: str, order: list[Lane], free: int, idle: bool, alone: bool) -> Any:
        expected = self._next(order, free, idle, alone)
        group = self.jobs.claim(worker, order, free, idle, alone)
        assert [job.id for job in group] == [row.id for row in expected]
        for job, row in zip(group, expected, strict=True):
            row.change(State.RUNNING, token=row.token + 1, attempts=row.attempts + 1, worker=worker, progress_done=0, progress_total=0)
            assert (job.token, job.attempts, job.worker) == (row.token, row.attempts, worker)
            self.v[row.lane] = max(self.v[row.lane], row.turn)
            self.given.setdefault(job.id, []).append(job)
            self.touched.add(job.id)
        return multiple(*group)

    def _ours(self, job: Job) -> Row | None:
        """The row, if the attempt still holds it."""
        row = self.model.get(job.id)
        return row if row is not None and row.state is State.RUNNING and row.token == job.token else None

    def _ended(self, job: Job, touched: bool) -> Row | None:
        row = self._ours(job)
        assert touched == (row is not None), "the store and the model do not agree whose the job is"
        self.touched |= {job.id} if row is not None else set()
        return row

    def _held(self, one: Job, other: Job, newest_first: bool) -> list[Job]:
        """As a worker that froze holds them: every attempt of one job, and an attempt of another."""
        held = {(job.id, job.token): job for job in [*self.given[one.id], other]}
        return list(held.values())[:: -1 if newest_first else 1]

    @rule(one=attempts, other=attempts, newest_first=st.booleans(), done=st.integers(0, 4), written=st.booleans(), renew=st.booleans())
    def keep(self, one: Job, other: Job, newest_first: bool, done: int, written: bool, renew: bool) -> None:
        holding = self._held(one, other, newest_first)
        held = {(job.id, job.token): ((done + job.token) % 5, 4) for job in holding}
        progressed = list(held) if written else [(other.id, other.token)]
        ours = {(job.id, job.token): row for job in holding if (row := self._ours(job)) is not None}
        assert self.jobs.keep(held, progressed, renew) == ours.keys()
        for attempt, row in ours.items():
            if renew:
                row.lapsed = False
                self.touched.add(row.id)
            if attempt in progressed:
                row.version += 1
                row.progress_done, row.progress_total = held[attempt]
                self.touched.add(row.id)

    @rule(one=attempts, other=attempts, newest_first=st.booleans())
    def succeed(self, one: Job, other: Job, newest_first: bool) -> None:
        group = self._held(one, other, newest_first)
        done = self.jobs.succeed([success(job) for job in group])
        ours = {(job.id, job.token) for job in group if self._ours(job) is not None}
        assert done == ours
        for job in group:
            if (job.id, job.token) in ours and (row := self._ended(job, touched=True)) is not None:
                row.change(State.SUCCEEDED, result_key=success(job).result_key, progress_done=1, progress_total=1)

    @rule(job=attempts)
    def fail(self, job: Job) -> None:
        if (row := self._ended(job, self.jobs.fail(job, BROKEN))) is not None:
            row.change(State.FAILED, error=BROKEN.code)

    @rule(job=attempts, alone=st.booleans())
    def retry(self, job: Job, alone: bool) -> None:
        if (row := self._ended(job, self.jobs.retry(job, PASSING, HOUR, alone))) is not None:
            row.queue_or_fail(PASSING.code)
            row.alone |= alone

    @rule(job=attempts)
    def release(self, job: Job) -> None:
        if (row := self._ended(job, self.jobs.release(job))) is not None:
            row.change(State.QUEUED, attempts=row.attempts - 1)

    # the moves of others, and time

    @rule(worker=st.sampled_from(WORKERS))
    def the_leases_of_a_worker_lapse(self, worker: str) -> None:
        lapsing = [row for row in self.model.values() if row.worker == worker]
        for row in lapsing:
            row.lapsed = True
        self._pass_time(lapsing, lease_until=LONG_AGO)

    @rule()
    def the_delays_are_over(self) -> None:
        waiting = [row for row in self.model.values() if row.state is State.QUEUED and not row.due]
        for row in waiting:
            row.due = True
        self._pass_time(waiting, due_at=LONG_AGO)

    def _pass_time(self, some: list[Row], **columns: Any) -> None:
        rewrite(self.engine, [row.id for row in some], **columns)
        self.touched |= {row.id for row in some}

    @rule(pardon=st.booleans())
    def reap(self, pardon: bool) -> None:
        assert self.jobs.reap(pardon=True) == []
        if pardon:
            return
        expected = [row for row in self.model.values() if row.lapsed]
        reaped = {job.id: job for job in self.jobs.reap()}
        assert reaped.keys() == {row.id for row in expected}
        for row in expected:
            row.queue_or_fail("worker_lost")
            row.alone = True
            assert (reaped[row.id].state, reaped[row.id].token) == (row.state, row.token)
        self._pass_time(expected, due_at=rows.c.due_at + HOUR * 1000)

    @rule(job_id=jobs_, owner=st.sampled_from([None, None, *OWNERS]))
    def cancel(self, job_id: str, owner: str | None) -> None:
        row = self.model.get(job_id)
        asking = owner or (row.owner_id if row is not None else OWNERS[0])
        canceled = self.jobs.cancel(asking, job_id)
        if row is None or row.owner_id != asking or row.state in FINAL:
            assert canceled is None
            return
        row.change(State.CANCELED, token=row.token + 1)
        self.touched.add(job_id)
        if self.last[row.owner_id, row.lane] == row.turn:
            flow = [one for one in self.model.values() if (one.owner_id, one.lane) == (row.owner_id, row.lane)]
            waiting = [one.turn for one in flow if one.state is State.QUEUED]
            self.last[row.owner_id, row.lane] = max([self.v[row.lane], *waiting])
        assert canceled is not None
        assert (canceled.state, canceled.token) == (State.CANCELED, row.token)

    @rule(job_id=jobs_)
    def delete(self, job_id: str) -> None:
        row = self.model.get(job_id)
        over = row is not None and row.state in FINAL
        assert self.jobs.delete(row.owner_id if row is not None else OWNERS[0], job_id) is over
        if over:
            del self.model[job_id]

    # what holds after every step

    @invariant()
    def every_row_is_as_the_model_says(self) -> None:
        found = Stored.now(self.engine)
        now = found.rows
        assert now.keys() == self.model.keys()
        for job_id, row in self.model.items():
            one = now[job_id]
            assert {name: one[name] for name in COLUMNS} == {name: getattr(row, name) for name in COLUMNS}
            assert (one["error"] or {}).get("code") == row.error
            assert (one["lease_until"] == LONG_AGO) is row.lapsed
        assert (found.v, found.last) == (self.v, self.last)
        self.rows_change_only_as_rows_may(now)
        self.before, self.touched = now, set()

    def rows_change_only_as_rows_may(self, now: dict[str, dict[str, Any]]) -> None:
        """Whatever the model says."""
        for job_id, one in now.items():
            was = self.before.get(job_id, one)
            assert (one["lease_until"] is not None) == (one["worker"] is not None) == (one["state"] == State.RUNNING)
            assert 0 <= one["attempts"] <= one["max_attempts"]
            assert (one["result"] is not None) == (one["result_key"] is not None) == (one["state"] == State.SUCCEEDED)
            assert one["token"] >= was["token"], "a token fell"
            assert was == one or was["state"] not in FINAL, "a final row changed"
            assert was == one or job_id in self.touched, "a move touched a row that was none of its business"
            assert one["version"] > was["version"] or all(one[name] == was[name] for name in VISIBLE), "nobody would see this change"


def test_moves_in_any_order_keep_the_promises_of_the_table(engine: Engine, new_job: MakesJobs) -> None:
    run_state_machine_as_test(lambda: AnyOrder(engine, new_job), settings=DRAWN)  # type: ignore[arg-type]  # any callable will do


# -- at once ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A move that a thread is to make; the number chooses among the jobs or attempts known by then, from there on `size` of them."""

    move: Move | str
    number: int
    size: int


@dataclass(frozen=True)
class Answer:
    """What a move said about one attempt. `won`: whether it touched the row."""

    move: Move
    id: str
    token: int
    won: bool
    attempts: int = 0  # of a claim
    mark: object = None  # of a success
    written: bool = False  # of a renewal: progress too


ENDS = (Move.SUCCEED, Move.FAIL, Move.RETRY, Move.RELEASE, Move.REAP)  # each ends an attempt
THREADS = 4
asked = st.builds(
    Asked, st.sampled_from([*Move, Move.CLAIM, Move.CLAIM, "accept", "pass time", "pass time"]), st.integers(0, 20), st.integers(1, 6)
)


@dataclass
class AtOnce:
    """What several threads know and are told; lists only grow, which threads may do at once."""

    engine: Engine
    new_job: MakesJobs
    max_attempts: int
    jobs: list[Job] = field(default_factory=list)  # as they were accepted
    attempts: list[Job] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    marks: Iterator[int] = field(default_factory=itertools.count)

    def make(self, store: Jobs, one: Asked) -> None:
        """One move."""
        some = [self.attempts[(one.number + further) % len(self.attempts)] for further in range(min(one.size, len(self.attempts)))]
        job = self.jobs[one.number % len(self.jobs)]
        if one.move == "accept":
            self.accept(store, OWNERS[one.number % 2], SMALL * one.size)
        elif one.move == "pass time":
            rewrite(self.engine, [job.id], rows.c.state == State.RUNNING, lease_until=LONG_AGO)
            rewrite(self.engine, [job.id], rows.c.state == State.QUEUED, due_at=LONG_AGO)
        elif one.move is Move.CLAIM:
            self.claim(store, free=SMALL * one.size)
        elif one.move is Move.RENEW:
            held = {(attempt.id, attempt.token): (one.number, 20) for attempt in some}
            written = list(held)[::2]
            kept = store.keep(held, written, renew=True)
            self.answers += [Answer(Move.RENEW, *attempt, attempt in kept, written=attempt in written) for attempt in held]
        elif one.move is Move.SUCCEED:
            mark = next(self.marks)
            done = store.succeed([success(attempt, mark) for attempt in some])
            self.answers += [Answer(Move.SUCCEED, each.id, each.token, (each.id, each.token) in done, mark=mark) for each in some]
        elif one.move is Move.REAP:
            self.answers += [Answer(Move.REAP, reaped.id, reaped.token, won=True) for reaped in store.reap()]
        elif one.move is Move.CANCEL:
            canceled = store.cancel(job.owner_id, job.id)
            self.answers.append(Answer(Move.CANCEL, job.id, canceled.token if canceled else 0, canceled is not None))
        elif some:
            end: dict[Move | str, Callable[[Job], bool]] = {
                Move.FAIL: lambda attempt: store.fail(attempt, BROKEN),
                Move.RETRY: lambda attempt: store.retry(attempt, PASSING, delay_seconds=0),
                Move.RELEASE: store.release,
            }
            self.answers.append(Answer(Move(one.move), some[0].id, some[0].token, end[one.move](some[0])))

    def accept(self, store: Jobs, owner: str, pixels: int) -> None:
        self.jobs.append(store.accept(self.new_job(owner_id=owner, pixels=pixels, max_attempts=self.max_attempts)))

    def claim(self, store: Jobs, free: int) -> None:
        for job in store.claim("w", [Lane.INTERACTIVE], free, idle=True):
            self.attempts.append(job)
            self.answers.append(Answer(Move.CLAIM, job.id, job.token, won=True, attempts=job.attempts))

    def explain(self, job: Job, row: dict[str, Any]) -> None:
        """There is an order of the moves that won in which each was legal, that leads to this row; and each that lost came too late."""
        answers = [answer for answer in self.answers if answer.id == job.id]
        won = [answer for answer in answers if answer.won]
        claims = sorted((answer for answer in won if answer.move is Move.CLAIM), key=lambda answer: answer.token)
        assert [claim.token for claim in claims] == list(range(1, len(claims) + 1)), "a token was given twice, or to nobody"
        ends = {answer.token: answer for answer in won if answer.move in ENDS}
        assert len(ends) == sum(answer.move in ENDS for answer in won), "an attempt ended twice"
        canceled = [answer for answer in won if answer.move is Move.CANCEL]
        assert [answer.token for answer in canceled] in ([], [len(claims) + 1])

        state, attempts = State.QUEUED, 0
        for claim in claims:
            assert state is State.QUEUED, "claimed while it did not wait"
            state, attempts = State.RUNNING, attempts + 1
            assert claim.attempts == attempts
            if claim.token in ends:
                state, attempts = self.after(ends[claim.token].move, attempts)
        if canceled:
            assert state not in FINAL
            state = State.CANCELED
        assert (row["state"], row["token"], row["attempts"]) == (state, len(claims) + len(canceled), attempts)
        assert row["alone"] is any(end.move is Move.REAP for end in ends.values())
        marks = [end.mark for end in ends.values() if end.move is Move.SUCCEED]
        assert [row["result"]["mark"]] == marks if row["result"] else not marks
        assert row["result_key"] == (blob_key(job.id, result_part(len(claims))) if marks else None)
        seen = [answer for answer in won if answer.move is not Move.RENEW or answer.written]
        assert row["version"] == 1 + len(seen)
        for lost in (answer for answer in answers if not answer.won):
            over = state in FINAL if lost.move is Move.CANCEL else lost.token < len(claims) or lost.token in ends or bool(canceled)
            assert over, "nothing stood against this move"

    def after(self, end: Move, attempts: int) -> tuple[State, int]:
        if end in (Move.SUCCEED, Move.FAIL):
            return (State.SUCCEEDED if end is Move.SUCCEED else State.FAILED), attempts
        if end is Move.RELEASE:
            return State.QUEUED, attempts - 1
        return (State.QUEUED if attempts < self.max_attempts else State.FAILED), attempts


@pytest.fixture
def stores(engine: Engine) -> Iterator[list[Jobs]]:
    """Stores with connections of their own, as several programs have."""
    engines = [hurried(open_database(engine.url.render_as_string(hide_password=False))) for _ in range(THREADS)]
    yield [Jobs(one, lease_seconds=HOUR) for one in engines]
    for one in engines:
        one.dispose()


def test_moves_made_at_once_are_as_if_made_one_after_the_other(engine: Engine, stores: list[Jobs], new_job: MakesJobs) -> None:
    with ThreadPoolExecutor(THREADS) as pool:

        @DRAWN
        @given(
            waiting=st.integers(1, 8), running=st.integers(0, 8), max_attempts=st.integers(1, 3),
            drawn=st.lists(st.lists(asked, min_size=2, max_size=8), min_size=THREADS, max_size=THREADS),
        )  # fmt: skip
        def hold(waiting: int, running: int, max_attempts: int, drawn: list[list[Asked]]) -> None:
            emptied(engine)
            known = AtOnce(engine, new_job, max_attempts)
            for number in range(waiting):
                known.accept(stores[0], OWNERS[number % 2], SMALL)
            if running:
                known.claim(stores[0], free=SMALL * running)
            start = threading.Barrier(THREADS)

            def work(store: Jobs, moves: Sequence[Asked]) -> None:
                start.wait()
                for one in moves:
                    known.make(store, one)

            threads = [pool.submit(work, store, moves) for store, moves in zip(stores, drawn, strict=True)]
            wait(threads)  # all, for the next example begins with an empty table
            for thread in threads:
                thread.result()
            now = Stored.now(engine)
            assert now.rows.keys() == {job.id for job in known.jobs}
            for job in known.jobs:
                known.explain(job, now.rows[job.id])
            turns_were_taken_one_after_the_other(known, now)

        hold()


def turns_were_taken_one_after_the_other(known: AtOnce, now: Stored) -> None:
    """But for those of jobs that were canceled: others may have them now."""
    v = now.v[Lane.INTERACTIVE]
    assert v == max((attempt.turn for attempt in known.attempts), default=0.0)
    for owner in OWNERS[:2]:
        accepted = sorted((job for job in known.jobs if job.owner_id == owner), key=lambda job: job.turn)
        waiting = [job.turn for job in accepted if now.rows[job.id]["state"] == State.QUEUED]
        last = now.last.get((owner, Lane.INTERACTIVE))
        assert (last is not None) == bool(accepted)
        assert max(v, last or 0.0) == max([v, *waiting]), "the flow goes on elsewhere than behind the last that waits"
        kept = [job for job in accepted if now.rows[job.id]["state"] != State.CANCELED]
        for one, next_ in itertools.pairwise(kept):
            assert next_.turn - one.turn >= next_.cost_mpx - ROUNDING


# -- in whatever turns --------------------------------------------------------------------------------------------------------

Flow = tuple[str, str]  # owner and lane


@dataclass
class Ledger:
    """Who waits, and the megapixels that each flow was served.

    The promise, in megapixels: over any stretch of time in which a flow waits, no other flow of its lane is served more than it
    by more than the cost of one job of each. Why: a job's turn is its cost behind the turn before it in its flow, or behind V
    at its acceptance. Let v be V when the stretch begins. What waits then has a turn of at least v. As long as flow i waits,
    the turn of its next job is at most v + what i was served since + the cost of that job; and what j is served before it has
    a smaller turn, the last of them at least v + what j was served since − the cost of the first. (This is the bound of
    self-clocked fair queueing, Golestani 1994. It holds as long as no job comes back into the queue.) The last of a flow that
    is canceled is as if it had never been. Any other leaves its place empty, as if it belonged to the job behind it, whose cost
    counts for so much more.
    """

    waiting: dict[Flow, list[tuple[Job, float]]] = field(default_factory=dict)  # with what each counts for
    served: dict[Flow, float] = field(default_factory=dict)
    largest: dict[Flow, float] = field(default_factory=dict)
    lowest: dict[tuple[Flow, Flow], float] = field(default_factory=dict)  # how far the second led the first, at the least, since it waits

    def accept(self, job: Job) -> None:
        flow = (job.owner_id, job.lane)
        self.served.setdefault(flow, 0.0)
        self.largest[flow] = max(self.largest.get(flow, 0.0), job.cost_mpx)
        if not self.waiting.setdefault(flow, []):
            self.lowest = {pair: lead for pair, lead in self.lowest.items() if pair[0] != flow}
        self.waiting[flow].append((job, job.cost_mpx))
        self.compare()

    def serve(self, job: Job) -> None:
        flow = (job.owner_id, job.lane)
        first, cost = self.waiting[flow].pop(0)
        assert first.id == job.id, "a flow overtook itself"
        self.served[flow] += cost
        self.compare()

    def cancel(self, flow: Flow, places: list[int]) -> Iterator[Job]:
        """One after the other, the jobs that wait there, as long as any do."""
        waiting = self.waiting.get(flow, [])
        for place in (place % len(waiting) for place in places if waiting):
            job, cost = waiting.pop(place)
            if waiting[place:]:
                behind, its = waiting[place]
                waiting[place] = behind, its + cost
                self.largest[flow] = max(self.largest[flow], its + cost)
            yield job

    def compare(self) -> None:
        """Every flow that waits with every other of its lane."""
        for flow in (flow for flow, waiting in self.waiting.items() if waiting):
            for other in self.served.keys() - {flow}:
                if other[1] == flow[1]:
                    lead = self.served[other] - self.served[flow]
                    lowest = self.lowest[flow, other] = min(lead, self.lowest.get((flow, other), lead))
                    assert lead - lowest <= self.largest[flow] + self.largest[other] + ROUNDING, "it waited for more than its share"


sizes = st.sampled_from([SMALL, 300_000, 1_000_000, 1_500_000])
bulk_mostly = st.sampled_from([Lane.BULK, Lane.BULK, Lane.INTERACTIVE])
arrivals = st.tuples(st.sampled_from(OWNERS), bulk_mostly, st.sampled_from([1, 1, 2]), st.booleans(), st.integers(1, 10))
departures = st.tuples(st.sampled_from([[Lane.BULK], [Lane.BULK], [Lane.INTERACTIVE, Lane.BULK]]), st.integers(1, 8))
cancels = st.tuples(st.sampled_from(OWNERS), bulk_mostly, st.lists(st.sampled_from([-1, -1, -1, 0, 3]), min_size=4, max_size=12))  # places


def test_no_flow_waits_for_more_than_its_share(engine: Engine, jobs: Jobs, new_job: MakesJobs) -> None:
    @DRAWN
    @given(st.tuples(*[sizes] * len(OWNERS)), st.lists(st.one_of(arrivals, departures, cancels), min_size=5, max_size=12))
    def hold(sizes_of: tuple[int, ...], steps: list[Any]) -> None:
        emptied(engine)
        ledger = Ledger()
        pixels_of = dict(zip(OWNERS, sizes_of, strict=True))

        def accept(owner: str, lane: Lane, times: int, best: bool, count: int) -> None:
            for _ in range(count):
                params = {"speed": "best"} if best else {}
                ledger.accept(jobs.accept(new_job(owner_id=owner, lane=lane, pixels=pixels_of[owner] * times, params=params)))

        def claim(lanes_in_order: list[Lane], count: int) -> None:
            while count and (group := jobs.claim("w", lanes_in_order, 10**9, idle=True)):
                count -= 1
                for job in group:
                    ledger.serve(job)

        def cancel(owner: str, lane: Lane, places: list[int]) -> None:
            for job in ledger.cancel((owner, lane), places):
                assert jobs.cancel(owner, job.id) is not None

        does: dict[int, Callable[..., None]] = {2: claim, 3: cancel, 5: accept}
        for step in steps:
            does[len(step)](*step)
        claim(list(Lane), 10**6)
        assert not any(ledger.waiting.values())

    hold()


def test_a_newcomer_is_neither_put_behind_a_backlog_or_what_it_canceled_nor_given_credit_for_its_quiet(
    engine: Engine, jobs: Jobs, new_job: MakesJobs
) -> None:
    @DRAWN
    @given(
        busy=sizes, backlog=st.integers(1, 8), before=st.integers(0, 8), size=sizes, count=st.integers(1, 8), known=st.booleans(),
        withdrawn=st.integers(0, 8), newest_first=st.booleans(),
    )  # fmt: skip
    def hold(busy: int, backlog: int, before: int, size: int, count: int, known: bool, withdrawn: int, newest_first: bool) -> None:
        emptied(engine)
        if known:  # it was here, and had its turn
            jobs.accept(new_job(owner_id="bert", pixels=size))
            jobs.claim("w", [Lane.INTERACTIVE], SMALL, idle=True)
        others = [jobs.accept(new_job(owner_id="anna", pixels=busy)) for _ in range(before + backlog)]
        for _ in range(before):
            jobs.claim("w", [Lane.INTERACTIVE], SMALL, idle=True)
        canceled = [jobs.accept(new_job(owner_id="bert", pixels=size)) for _ in range(withdrawn)]
        for job in canceled[:: -1 if newest_first else 1]:
            assert jobs.cancel("bert", job.id) is not None
        mine = [jobs.accept(new_job(owner_id="bert", pixels=size)) for _ in range(count)]
        order: list[Job] = []
        while group := jobs.claim("w", [Lane.INTERACTIVE], SMALL, idle=True):
            order += group
        one, other = mine[0].cost_mpx, others[0].cost_mpx
        ahead = [job.owner_id for job in order].index("bert")
        assert ahead * other <= one + other + ROUNDING, "it waits behind the backlog"
        of_mine = [job.owner_id for job in order].index("anna")
        assert of_mine * one <= one + other + ROUNDING, "it is served for the time in which it was quiet"

    hold()
