"""The moves of shared/jobs/job.py, one statement each. The rows a statement touched are the answer.

Every write of an attempt names the token it was claimed with: after a cancel, a reap or another claim it touches no row,
and "no longer ours" is an ordinary answer. Time is the database's (`now_ms`, and `clock_ms` for leases).

On PostgreSQL rows are locked one by one. Nobody waits for another in a ring: who picks rows skips what is locked, and who
writes several of its own takes them in the order of their ids.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Engine,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)

from shared import events
from shared.database.engine import ONE_SELECT, READ_ONLY, clock_ms, now_ms, upsert
from shared.database.tables import (
    batches,
    datasets,
    flows,
    items,
    job_metrics,
    jobs,
    lanes,
    models,
    outputs,
    rates,
    reservations,
    unsettled,
)
from shared.errors import Outcome, Refused
from shared.jobs import turns
from shared.jobs.job import (
    DATASET,
    FIELDS,
    FINAL,
    MOVES,
    PREVIEWS,
    Job,
    Kind,
    Lane,
    Move,
    NewJob,
    State,
    Success,
    blob_key,
    cost_mpx,
    input_keys,
    preview_part,
)

RESERVED_MS = 60_000
KEPT_MS = 24 * 3_600_000  # an Idempotency-Key is kept as long as its job, and at least a day
POSITIONS = 1_000
LATE_MS = 10_000  # a row can be seen so long after the time that it names as its change: its transaction took a while
LONGEST_DELAY_SECONDS = 5.0  # of a retry
PUBLISHED = (
    "size", "mtime_ns", "sha256", "source", "source_size", "source_mtime_ns", "source_inode", "source_sha256", "asked", "published_at",
)  # fmt: skip
# by the id of a job, what is remembered of its output: a row of `outputs`; None where somebody took it away
Publications = Mapping[str, Mapping[str, Any] | None] | None
FIGURES = ("psnr", "ssim", "mse", "rmse", "mae")
METRICS = ("of", "epoch", "picture", "protocol", "loss", *FIGURES, "seconds")
REAPED_DUE_MS = 1_000
LATEST_WEIGHS = 0.2  # of one job, in the rate of its model
CHUNK = 500  # rows that one write changes
WORKER_LOST = {
    "code": "worker_lost",
    "title": "The worker died at this job",
    "detail": "Every attempt lost its worker. The file itself may be the cause.",
    "retryable": True,
}

COLUMNS = [jobs.c[name] for name in FIELDS]  # of a `Job`
_change = [jobs.c[name] for name in ("id", "owner_id", "batch_id", "version", "changed_at")]  # in the order of `Change`

# the indices of waiting and of running rows are partial. A state as a parameter would let SQLite plan each such statement anew
# whenever it is run, which takes four times as long as running it
_STATES = {state: literal_column(f"'{state}'", jobs.c.state.type) for state in State}
_queued, _running = _STATES[State.QUEUED], _STATES[State.RUNNING]

# made once, because they are run most often, and making a statement of forty columns takes longer than running it
_INSERT = insert(jobs).values(
    state=State.QUEUED, version=1, token=0, attempts=0, alone=False, notes=[], progress_done=0, progress_total=0,
    rung_at=now_ms(), due_at=now_ms(), created_at=now_ms(), changed_at=now_ms(),
)  # fmt: skip
_ACCEPT = _INSERT.returning(*COLUMNS)
_v = select(lanes.c.v).where(lanes.c.name == flows.c.lane).scalar_subquery()
_its_flow = and_(flows.c.owner_id == bindparam("owner"), flows.c.batch_id == bindparam("batch"), flows.c.lane == bindparam("in_lane"))
_TAKE_TURN = (
    update(flows)
    .where(_its_flow)
    .values(last_turn=case((flows.c.last_turn > _v, flows.c.last_turn), else_=_v) + bindparam("cost_mpx"))
    .returning(flows.c.last_turn)
)
_LOCK_FLOW = select(flows.c.last_turn).where(_its_flow).with_for_update()
_last_waiting = (
    select(func.max(jobs.c.turn))
    .where(jobs.c.owner_id == flows.c.owner_id, jobs.c.lane == flows.c.lane, jobs.c.batch_id.is_(None), jobs.c.state == _queued)
    .scalar_subquery()
)
_GIVE_TURN_BACK = (
    update(flows)
    .where(_its_flow, flows.c.last_turn == bindparam("turn"))
    .values(last_turn=case((_last_waiting > _v, _last_waiting), else_=_v))
)
_ONE = select(*COLUMNS).where(jobs.c.id == bindparam("id"))
_OWNED = _ONE.where(jobs.c.owner_id == bindparam("owner_id"))
_before = tuple_(jobs.c.turn, jobs.c.id) < tuple_(bindparam("turn", type_=jobs.c.turn.type), bindparam("id", type_=jobs.c.id.type))
_AHEAD = select(func.count()).select_from(
    select(jobs.c.id).where(jobs.c.lane == bindparam("lane"), jobs.c.state == _queued, _before).limit(POSITIONS + 1).subquery()
)

_other = jobs.alias("other")
_before_it = select(_other.c.id).where(
    _other.c.lane == jobs.c.lane, _other.c.state == _queued,
    tuple_(_other.c.turn, _other.c.id) < tuple_(jobs.c.turn, jobs.c.id),
).correlate(jobs).limit(POSITIONS + 1).subquery()  # fmt: skip
_PLACED = _OWNED.add_columns(
    case((jobs.c.state == _queued, select(func.count()).select_from(_before_it).scalar_subquery())).label("before")
)


@dataclass(frozen=True)
class Reservation:
    """The right to fulfil an Idempotency-Key; the token tells it from one that took it over."""

    owner_id: str
    key: str
    token: int


@dataclass(frozen=True)
class Replay:
    """A key that already has its job, or its batch."""

    job_id: str
    fingerprint: str


@dataclass(frozen=True)
class Change:
    """That a row changed: as much as choosing who hears of it takes."""

    id: str
    owner_id: str
    batch_id: str | None
    version: int
    changed_at: int


@dataclass(frozen=True)
class Scope:
    """Which jobs somebody watches: all of an owner's, those of a batch, or one."""

    owner_id: str
    job_id: str | None = None
    batch_id: str | None = None

    def holds(self, change: Change) -> bool:
        """Whether that row is one of them."""
        return change.owner_id == self.owner_id and self.job_id in (None, change.id) and self.batch_id in (None, change.batch_id)

    def condition(self) -> ColumnElement[bool]:
        """The same in SQL."""
        given = {"owner_id": self.owner_id, "id": self.job_id, "batch_id": self.batch_id}
        return and_(*(jobs.c[name] == value for name, value in given.items() if value is not None))


@dataclass(frozen=True)
class InWork:
    """A running job, and how many megapixels of it are left."""

    id: str
    lane: str
    worker: str
    left_mpx: float


@dataclass(frozen=True)
class Load:
    """What is in work and waiting, and how fast models are: what times are estimated from."""

    now: int
    rates: Mapping[tuple[str, int], float]  # model name and version → seconds per megapixel
    claimed: Mapping[str, float]  # lane → V, the turn last claimed
    waiting: Sequence[tuple[str, float]]  # lane and last turn of each flow that has some waiting
    running: Sequence[InWork]


@dataclass(frozen=True)
class Backlog:
    """What waits in a lane."""

    lane: Lane
    jobs: int
    pixels: int
    oldest_seconds: float  # since when the oldest waits; 0 if none does
    seconds: float | None  # that one worker's device needs for all; None while the rate of a model among them is unknown

    def and_also(self, count: int, pixels: int, oldest_seconds: float, mpx: float, rate: float | None) -> "Backlog":
        """With `count` more jobs of a model of that rate, in seconds per megapixel."""
        seconds = None if self.seconds is None or rate is None else self.seconds + mpx * rate
        return Backlog(self.lane, self.jobs + count, self.pixels + pixels, max(self.oldest_seconds, oldest_seconds), seconds)


class Jobs:
    """The store. Methods are safe from any thread and any process."""

    def __init__(self, engine: Engine, lease_seconds: float) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**READ_ONLY)
        self._looker = engine.execution_options(**ONE_SELECT)
        self._lease_ms = int(lease_seconds * 1000)
        output = upsert(engine, outputs).values(published_at=now_ms())
        changed = {name: output.excluded[name] for name in PUBLISHED}
        self._remember = output.on_conflict_do_update(index_elements=["place"], set_=changed)
        self._mean = _mean(engine)

    # -- accept ---------------------------------------------------------------------------------------------------------

    def accept(
        self,
        new: NewJob,
        reservation: Reservation | None = None,
        fingerprint: str = "",
        alongside: Sequence[Callable[[Connection], None]] = (),
    ) -> Job:
        """Insert a queued job in its turn. In the same transaction fulfil its reservation, and do what belongs `alongside`.

        A retry takes the place of what it retries in its batch. Raises `Refused("idempotency_in_progress")` if the reservation
        was taken over meanwhile, `Refused("path_taken")`, and what `alongside` raises.
        """
        with self._engine.begin() as connection:
            for also in alongside:
                also(connection)
            if reservation is not None and not fulfil(connection, reservation, new.id, fingerprint):
                raise Refused("idempotency_in_progress", retry_after_s=1)
            if new.batch_id is not None and new.path is not None:
                _make_room(connection, new)
            turn = _take_turn(connection, new, new.cost_mpx)
            values = {name: getattr(new, name) for name in _NEW_FIELDS}
            job = job_of(connection.execute(_ACCEPT, {**values, "turn": turn}).one())
        events.emit("job.accepted", job_id=job.id, lane=job.lane, model=job.model, pixels=job.pixels)
        return job

    def accept_found(self, listing: Job, found: Sequence[NewJob]) -> int:
        """Insert the pictures that the attempt `listing` found for its batch, all of one model, in the order of their turns; how many.

        Those whose paths the batch has already are left out: an attempt before found them. None is inserted, and the answer is
        -1, if the attempt is no longer ours.
        """
        ours = select(jobs.c.id).where(jobs.c.id == listing.id, jobs.c.token == listing.token, jobs.c.state == _running)
        with self._engine.begin() as connection:
            if connection.execute(ours.with_for_update()).first() is None:
                return -1
            there = select(jobs.c.path).where(jobs.c.batch_id == listing.batch_id, jobs.c.path.in_([new.path for new in found]))
            known = set(connection.execute(there).scalars())
            news = [new for new in found if new.path not in known]
            if news:
                turn = _take_turn(connection, news[0], sum(new.cost_mpx for new in news))
                rows = []
                for new in reversed(news):
                    rows.append({**{name: getattr(new, name) for name in _NEW_FIELDS}, "turn": turn})
                    turn -= new.cost_mpx
                connection.execute(_INSERT, rows[::-1])
                paths = [new.path for new in news]
                connection.execute(delete(items).where(items.c.batch_id == listing.batch_id, items.c.path.in_(paths)))
        return len(news)

    # -- the moves of an attempt ----------------------------------------------------------------------------------------

    def claim(self, worker: str, lanes_in_order: Sequence[Lane], free_pixels: int, idle: bool, alone: bool = True) -> list[Job]:
        """CLAIM: the best due rows of the first lane that has any; empty if there are none, or they do not fit yet.

        Without `alone` those that must run alone are passed over: one runs already.
        """
        began = time.monotonic()
        with self._engine.begin() as connection:
            for lane in lanes_in_order:
                due = connection.execute(_due(lane, alone)).all()
                if not due:
                    continue
                chosen = turns.choose(due, free_pixels, idle)
                if not chosen:  # it waits for room: small bulk pictures would take each pixel that gets free, and starve it
                    return []
                statement = (
                    update(jobs)
                    .where(jobs.c.id.in_([row.id for row in chosen]), _may(Move.CLAIM))
                    .values(
                        state=State.RUNNING, token=jobs.c.token + 1, attempts=jobs.c.attempts + 1, worker=worker,
                        lease_until=clock_ms() + self._lease_ms, started_at=func.coalesce(jobs.c.started_at, now_ms()),
                        progress_done=0, progress_total=0, checkpoint_at_claim=jobs.c.checkpoint_key, **_changed,
                    )
                    .returning(*COLUMNS)
                )  # fmt: skip
                claimed = sorted((job_of(row) for row in connection.execute(statement)), key=lambda job: (job.turn, job.id))
                last = max(row.turn for row in chosen)
                connection.execute(update(lanes).where(lanes.c.name == lane, lanes.c.v < last).values(v=last))
                break
            else:
                return []
        took_ms = round((time.monotonic() - began) * 1000, 1)
        for job in claimed:
            waited_ms = max(0, (job.started_at or job.created_at) - job.created_at)  # the clock may have been stepped back
            _tell("job.claimed", job, attempts=job.attempts, worker=worker, lane=job.lane, waited_ms=waited_ms, ms=took_ms)
        return claimed

    def keep(
        self, held: Mapping[tuple[str, int], tuple[int, int]], progressed: Iterable[tuple[str, int]], renew: bool
    ) -> frozenset[tuple[str, int]]:
        """RENEW, and progress: of the attempts `held` as (id, token) → (done, total), which are still ours.

        `progressed` names those whose progress is written. A lease is renewed also after it lapsed, as long as nobody reaped.
        """
        written = [pair for pair in progressed if pair in held]
        ours = select(jobs.c.id, jobs.c.token).where(_attempts(held), _may(Move.RENEW)).order_by(jobs.c.id)
        with self._engine.begin() as connection:
            kept = frozenset((row.id, row.token) for row in connection.execute(ours.with_for_update() if written or renew else ours))
            written = [pair for pair in written if pair in kept]  # now each of another job, for the values below go by the job
            if written:
                connection.execute(
                    update(jobs)
                    .where(_attempts(written), _may(Move.RENEW))
                    .values(
                        progress_done=case({job_id: held[job_id, token][0] for job_id, token in written}, value=jobs.c.id),
                        progress_total=case({job_id: held[job_id, token][1] for job_id, token in written}, value=jobs.c.id),
                        **_changed,
                    )
                )
            if renew:
                renewed = update(jobs).where(_attempts(kept), _may(Move.RENEW)).values(lease_until=clock_ms() + self._lease_ms)
                connection.execute(renewed)
        return kept

    def record(
        self, job: Job, artifacts: Mapping[str, Any], checkpoint_key: str | None, rows: Sequence[Mapping[str, Any]], anew: bool = False
    ) -> bool:
        """What an attempt leaves on its way: all its artifacts, where it would go on, and figures that are new.

        They take the place of those of the same epochs, or of what is no epoch's; `anew` of all. False if it is no longer ours.
        """
        values = {"artifacts": dict(artifacts), "checkpoint_key": checkpoint_key, **_changed}
        ours = update(jobs).where(jobs.c.id == job.id, jobs.c.token == job.token, _may(Move.RENEW)).values(**values)
        with self._engine.begin() as connection:
            if connection.execute(ours).rowcount != 1:
                return False
            epochs = {row.get("epoch") for row in rows}
            same = or_(job_metrics.c.epoch.in_(epochs - {None}), *([job_metrics.c.epoch.is_(None)] if None in epochs else []))
            connection.execute(delete(job_metrics).where(job_metrics.c.job_id == job.id, *([] if anew else [same])))
            if rows:
                connection.execute(insert(job_metrics), [dict.fromkeys(METRICS) | {"job_id": job.id} | dict(row) for row in rows])
        return True

    def succeed(self, group: Sequence[Success], published: Publications = None) -> frozenset[tuple[str, int]]:
        """SUCCEED: one transaction for the group, one guarded statement for each row. The attempts that were still ours.

        Outputs of earlier ones that are `published` are told of in the same transaction. By id and token, for a group may hold a
        lost attempt of a job beside the one that took over.
        """
        done = []
        with self._engine.begin() as connection:
            for success in sorted(group, key=lambda success: success.job.id):
                job = success.job
                values = {name: getattr(success, name) for name in ("result", "result_key", "notes", "metrics", "read", "units")}
                if connection.execute(_SUCCEED, {"of": job.id, "held": job.token, **values}).rowcount == 1:
                    done.append(success.attempt)
                    _write_metrics(connection, job.id, success.metrics)
                    if success.alongside is not None:
                        success.alongside(connection)
            self._measure(connection, [success for success in group if success.attempt in done])
            _settle(connection, [success.job for success in group])
            self._publish(connection, published)
        for success in group:
            job, result = success.job, success.result
            if success.attempt in done:
                pace = {"executor": result.get("executor"), "seconds": result.get("seconds"), "pixels": job.pixels}
                _tell("job.succeeded", job, model=job.model, **pace)
            else:
                _tell("job.lost", job)
        return frozenset(done)

    def fail(self, job: Job, outcome: Outcome) -> bool:
        """FAIL: for good. False if the job was no longer ours."""
        return self._end(
            job,
            Move.FAIL,
            "job.failed",
            {"state": State.FAILED, "error": _error(outcome), "published_at": _nothing_left, **_ended},
            code=outcome.code,
        )

    def retry(self, job: Job, outcome: Outcome, delay_seconds: float, alone: bool = False) -> bool:
        """RETRY: queued again after `delay_seconds`, or failed with this error when the attempts are used up.

        It is put off by `LONGEST_DELAY_SECONDS` at most.
        """
        delay_ms = int(min(delay_seconds, LONGEST_DELAY_SECONDS) * 1000)
        values = {**_requeued_or_failed(_error(outcome), delay_ms), "alone": or_(jobs.c.alone, literal(alone))}
        return self._end(job, Move.RETRY, "job.retried", values, code=outcome.code)

    def release(self, job: Job) -> bool:
        """RELEASE: given back unharmed; this attempt does not count."""
        values = {
            "state": State.QUEUED,
            "attempts": case((_went_on, 0), else_=jobs.c.attempts - 1),
            "lease_until": None,
            "worker": None,
            "due_at": now_ms(),
            **_changed,
        }
        return self._end(job, Move.RELEASE, "job.released", values)

    # -- the moves of others --------------------------------------------------------------------------------------------

    def reap(self, pardon: bool = False, at: int | None = None) -> list[Job]:
        """REAP: every running job whose lease lapsed by the time `at` (by default now), as it is now (queued, alone; or failed).

        With `pardon` none is: the statement only shows that the database can be written.
        """
        # twice a lease: the reaper pauses after a clock was stepped, but not for a small step, and then healthy workers renew later
        over = _over(jobs.c.lease_until, 2 * self._lease_ms, now_ms() if at is None else literal(at, jobs.c.lease_until.type))
        lapsed = select(jobs.c.id).where(_may(Move.REAP), over, *([false()] if pardon else []))
        statement = (
            update(jobs)
            .where(jobs.c.id.in_(lapsed.with_for_update(skip_locked=True)), _may(Move.REAP))
            .values(**_requeued_or_failed(WORKER_LOST, REAPED_DUE_MS), alone=True)
            .returning(*COLUMNS)
        )
        with self._engine.begin() as connection:
            reaped = [job_of(row) for row in connection.execute(statement)]
            _settle(connection, reaped)
        for job in reaped:
            _tell("job.reaped", job, attempts=job.attempts, state=job.state)
            if job.state is State.FAILED:
                _tell("job.failed", job, code=WORKER_LOST["code"])
        return reaped

    def cancel(self, owner_id: str, job_id: str) -> Job | None:
        """CANCEL: final at once; the token rises, so an attempt under way can no longer write. None if it was over already."""
        statement = (
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.owner_id == owner_id, _may(Move.CANCEL))
            .values(state=State.CANCELED, token=jobs.c.token + 1, **_ended)
            .returning(*COLUMNS)
        )
        with self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
            canceled = job_of(row) if row is not None else None
            if canceled is not None:
                _settle(connection, [canceled])
                _give_turn_back(connection, canceled)  # last, as whoever accepts a model's job locks the model before the flow
        if canceled is not None:
            events.emit("job.canceled", job_id=job_id)
        return canceled

    def cancel_batch(self, batch_id: str) -> int:
        """CANCEL all of a batch that has not ended, as many as one write changes at a time; how many."""
        canceled = 0
        # as the index holds them, running ones first: sorting all that are left for each chunk would take longer than canceling them
        some = select(jobs.c.id).where(jobs.c.batch_id == batch_id, _may(Move.CANCEL)).order_by(jobs.c.state.desc()).limit(CHUNK)
        left = select(jobs.c.id).where(jobs.c.id.in_(some.scalar_subquery()), _may(Move.CANCEL)).order_by(jobs.c.id).with_for_update()
        while True:
            with self._engine.begin() as connection:
                ids = connection.execute(left).scalars().all()
                statement = update(jobs).where(jobs.c.id.in_(ids), _may(Move.CANCEL))
                connection.execute(statement.values(state=State.CANCELED, token=jobs.c.token + 1, **_ended))
            canceled += len(ids)
            if not ids:
                events.emit("batch.emptied", batch_id=batch_id, jobs=canceled)
                return canceled

    def unsettled(self, limit: int = CHUNK) -> list[Job]:
        """Ended jobs whose outputs are not known to be in their places, or whose attempts may have left something there."""
        with self._reading() as connection:
            return [job_of(row) for row in connection.execute(select(*COLUMNS).where(unsettled).order_by(jobs.c.batch_id).limit(limit))]

    def publish(self, published: Publications) -> None:
        """The outputs of these jobs are in their places; by job a row of what lies there, for who restores the same again."""
        with self._engine.begin() as connection:
            self._publish(connection, published)

    def expire(self, keep_seconds: float) -> int:
        """Say of pictures whose jobs ended longer ago than this that their files are no longer kept; how many.

        The sweeper takes the files later.
        """
        keep_ms = int(keep_seconds * 1000)
        in_blobs = and_(jobs.c.kind == Kind.RESTORE, jobs.c.output.is_(None))  # what lies in the user's folders is theirs to keep
        old = [in_blobs, jobs.c.expires_at.is_(None), jobs.c.finished_at < now_ms() - keep_ms]
        expired = 0
        while True:
            with self._reading() as connection:
                ids = list(connection.execute(select(jobs.c.id).where(*old).order_by(jobs.c.finished_at).limit(CHUNK)).scalars())
            if not ids:
                return expired
            statement = update(jobs).where(jobs.c.id.in_(ids), *old).values(expires_at=jobs.c.finished_at + keep_ms, **_changed)
            with self._engine.begin() as connection:
                expired += connection.execute(statement).rowcount

    def delete(self, owner_id: str, job_id: str) -> bool:
        """Remove the row of a job that is over, and what belongs to it. False if it is not over, or not there."""
        statement = delete(jobs).where(jobs.c.id == job_id, jobs.c.owner_id == owner_id, jobs.c.state.in_(FINAL))
        with self._engine.begin() as connection:
            deleted = connection.execute(statement).rowcount == 1
        if deleted:
            events.emit("job.deleted", job_id=job_id)
        return deleted

    # -- reading --------------------------------------------------------------------------------------------------------

    def get(self, job_id: str, owner_id: str | None = None) -> Job | None:
        """The job, if there is one (and it is that owner's)."""
        statement, values = (_ONE, {}) if owner_id is None else (_OWNED, {"owner_id": owner_id})
        with self._looker.connect() as connection:
            row = connection.execute(statement, {"id": job_id, **values}).one_or_none()
        return job_of(row) if row is not None else None

    def placed(self, job_id: str, owner_id: str) -> tuple[Job, int | None] | None:
        """That owner's job and its `position`, by one statement: what is asked for most often."""
        with self._looker.connect() as connection:
            row = connection.execute(_PLACED, {"id": job_id, "owner_id": owner_id}).one_or_none()
        return None if row is None else (job_of(row), _position(row.before))

    def page(self, owner_id: str, filters: Mapping[str, str | int], limit: int, before: str | None) -> list[Job]:
        """Newest first, at most `limit`, older than the job `before`. `filters` are columns and the values they must have."""
        statement = select(*COLUMNS).where(jobs.c.owner_id == owner_id, *(jobs.c[name] == value for name, value in filters.items()))
        if before is not None:
            statement = statement.where(jobs.c.id < before)
        with self._reading() as connection:
            return [job_of(row) for row in connection.execute(statement.order_by(jobs.c.id.desc()).limit(limit))]

    def listing_of(self, batch_id: str) -> Job | None:
        """The job that listed a batch first, if any did."""
        first = select(*COLUMNS).where(jobs.c.batch_id == batch_id, jobs.c.path.is_(None), jobs.c.kind == Kind.INGEST)
        with self._looker.connect() as connection:
            row = connection.execute(first.order_by(jobs.c.id).limit(1)).one_or_none()
        return None if row is None else job_of(row)

    def unfinished(self, owner_id: str, limit: int, but_of: str | None = None) -> int:
        """How many jobs of an owner wait or run, leaving out those of one batch; counts no further than `limit`."""
        others = [] if but_of is None else [or_(jobs.c.batch_id.is_(None), jobs.c.batch_id != but_of)]
        mine = and_(jobs.c.owner_id == owner_id, jobs.c.state.in_([State.QUEUED, State.RUNNING]), *others)
        open_ = select(jobs.c.id).where(mine).limit(limit)
        with self._looker.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(open_.subquery())).scalar_one())

    def position(self, job: Job) -> int | None:
        """How many queued rows of its lane come before it; None if it does not wait, or for more than 1 000."""
        if job.state is not State.QUEUED:
            return None
        with self._looker.connect() as connection:
            return _position(connection.execute(_AHEAD, {"lane": job.lane, "turn": job.turn, "id": job.id}).scalar_one())

    def load(self) -> Load:
        """What times are estimated from, now."""
        behind = select(flows.c.lane, flows.c.last_turn).join(lanes, lanes.c.name == flows.c.lane).where(flows.c.last_turn > lanes.c.v)
        columns = [jobs.c[name] for name in ("id", "lane", "worker", "pixels", "params", "progress_done", "progress_total")]
        with self._reading() as connection:
            return Load(
                now=connection.execute(select(now_ms())).scalar_one(),
                rates={(row.model_name, row.model_version): row.seconds_per_mpx for row in connection.execute(select(rates))},
                claimed={row.name: row.v for row in connection.execute(select(lanes))},
                waiting=[(row.lane, row.last_turn) for row in connection.execute(behind)],
                running=[_in_work(row) for row in connection.execute(select(*columns).where(jobs.c.state == _running))],
            )

    def backlog(self) -> list[Backlog]:
        """What waits in each lane, and how long one worker will take for it, at the rates of its models."""
        kinds = (jobs.c.lane, jobs.c.model_name, jobs.c.model_version, jobs.c.params["speed"].as_string())
        waiting = (
            select(*kinds, func.count(), func.sum(jobs.c.pixels), now_ms() - func.min(jobs.c.created_at))
            .where(jobs.c.state == _queued)
            .group_by(*kinds)
        )
        with self._reading() as connection:
            known = {(row.model_name, row.model_version): row.seconds_per_mpx for row in connection.execute(select(rates))}
            known["", 0] = 0.0  # what needs no network takes nothing of the device
            found = [Backlog(Lane(lane), 0, 0, 0.0, 0.0) for lane in Lane]
            of = {each.lane: number for number, each in enumerate(found)}
            for lane, model, version, speed, count, pixels, age in connection.execute(waiting):
                mpx = cost_mpx(int(pixels), {"speed": speed}) + 0.01 * (count - 1)
                found[of[lane]] = found[of[lane]].and_also(count, int(pixels), age / 1000, mpx, known.get((model, version)))
        return found

    def versions(self, ids: Iterable[str]) -> dict[str, int]:
        """The version of each of these jobs that exists: what the API's watch compares."""
        with self._reading() as connection:
            rows = connection.execute(select(jobs.c.id, jobs.c.version).where(jobs.c.id.in_(list(ids))))
            return {row.id: row.version for row in rows}

    def positions(self, lanes_: Iterable[str]) -> dict[str, int]:
        """`position` of every job at once that waits in these lanes and has one."""
        found: dict[str, int] = {}
        with self._reading() as connection:
            for lane in lanes_:
                first = select(jobs.c.id).where(jobs.c.lane == lane, jobs.c.state == _queued).order_by(jobs.c.turn, jobs.c.id)
                found |= {job_id: number for number, job_id in enumerate(connection.execute(first.limit(POSITIONS + 1)).scalars())}
        return found

    def changes(self, since: int | None) -> tuple[int, list[Change]]:
        """(now, the rows of all owners that changed since the time `since`, or just now): what the API's watch tells streams of.

        Reads `LATE_MS` further back, so the same change comes several times.
        """
        with self._reading() as connection:
            now = connection.execute(select(now_ms())).scalar_one()
            rows = connection.execute(select(*_change).where(jobs.c.changed_at >= (now if since is None else since) - LATE_MS))
            return now, [Change(*row) for row in rows]

    def current(self, scope: Scope, limit: int) -> list[Job]:
        """The newest of those jobs, at most `limit`, and all that run; in the order of their change."""
        newest = select(*COLUMNS).where(scope.condition()).order_by(jobs.c.id.desc()).limit(limit)
        running = select(*COLUMNS).where(scope.condition(), jobs.c.state == _running)
        with self._reading() as connection:
            found = {row.id: job_of(row) for statement in (newest, running) for row in connection.execute(statement)}
        return sorted(found.values(), key=lambda job: (job.changed_at, job.id))

    def changed(self, scope: Scope, since: int, after: str, limit: int) -> list[Change]:
        """Those of these jobs that changed since, in the order of their change; of the first millisecond those after that id."""
        later = or_(jobs.c.changed_at > since, and_(jobs.c.changed_at == since, jobs.c.id > after))
        wanted = and_(scope.condition(), jobs.c.changed_at >= since, later)
        statement = select(*_change).where(wanted).order_by(jobs.c.changed_at, jobs.c.id).limit(limit)
        with self._reading() as connection:
            return [Change(*row) for row in connection.execute(statement)]

    def now(self) -> int:
        """The database's time, in milliseconds."""
        with self._reading() as connection:
            return int(connection.execute(select(now_ms())).scalar_one())

    def these(self, ids: Iterable[str]) -> dict[str, Job]:
        """Each of these jobs that exists."""
        with self._reading() as connection:
            return {row.id: job_of(row) for row in connection.execute(select(*COLUMNS).where(jobs.c.id.in_(list(ids))))}

    def metrics(self, job_id: str) -> list[dict[str, Any]]:
        """The rows of figures of a job, in the order in which they came: `METRICS`, None where a figure means nothing."""
        named = [job_metrics.c[name] for name in METRICS]
        with self._reading() as connection:
            rows = connection.execute(select(*named).where(job_metrics.c.job_id == job_id).order_by(job_metrics.c.id))
            return [dict(row._mapping) for row in rows]

    def evaluated(self, owner: str, references: Iterable[str]) -> list[dict[str, Any]]:
        """The means of an owner's evaluations of these models (`name@version`), by model, the oldest first.

        Of each the `model`, its `protocol`, the `set` of pictures, the `job`, and `FIGURES`. An evaluation's figures go with its job.
        """
        named = [job_metrics.c[name] for name in ("protocol", *FIGURES)]
        pictures = jobs.c.input["name"].as_string()
        measured = (
            select(job_metrics.c.of.label("model"), job_metrics.c.job_id.label("job"), pictures.label("set"), *named)
            .join(jobs, jobs.c.id == job_metrics.c.job_id)
            .where(job_metrics.c.of.in_(list(references)), job_metrics.c.picture.is_(None), job_metrics.c.epoch.is_(None))
            .where(job_metrics.c.of.like(literal_column("'%@%'")))  # as the index has it
            .where(jobs.c.owner_id == owner, jobs.c.kind == Kind.EVALUATE, jobs.c.state == State.SUCCEEDED)
            .order_by(job_metrics.c.of, job_metrics.c.job_id, job_metrics.c.id)
        )
        with self._reading() as connection:
            return [dict(row._mapping) for row in connection.execute(measured)]

    def unheard(self, older_than_seconds: float, limit: int = 100) -> list[tuple[str, str]]:
        """(id, lane) of due rows that nobody rang for since: upkeep rings for them again. Marks them as rung."""
        quiet_ms = int(older_than_seconds * 1000)
        due = (
            select(jobs.c.id)
            .where(jobs.c.state == _queued, _is_due(), _over(jobs.c.rung_at + quiet_ms, quiet_ms))
            .order_by(jobs.c.turn)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._engine.begin() as connection:
            statement = update(jobs).where(jobs.c.id.in_(due.scalar_subquery())).values(rung_at=now_ms())
            return [(row.id, row.lane) for row in connection.execute(statement.returning(jobs.c.id, jobs.c.lane))]

    def kept_parts(self, ids: Iterable[str], grace_seconds: float) -> dict[str, set[str] | None]:
        """Of each job that exists, the blob keys that its row names; None means all of them: it runs, or ended just now."""
        statement = select(
            jobs.c.id,
            jobs.c.kind,
            jobs.c.state,
            jobs.c.input,
            jobs.c.token,
            jobs.c.result_key,
            jobs.c.expires_at,
            jobs.c.artifacts,
            (jobs.c.changed_at > now_ms() - int(grace_seconds * 1000)).label("fresh"),
        ).where(jobs.c.id.in_(list(ids)))
        with self._reading() as connection:
            return {row.id: _named(row) for row in connection.execute(statement)}

    # -- Idempotency-Key ------------------------------------------------------------------------------------------------

    def reserve(self, owner_id: str, key: str) -> Reservation | Replay:
        """Reserve a key before the body is read, or take over a lapsed reservation.

        Raises `Refused("idempotency_in_progress")` while another request with this key is being received.
        """
        statement = upsert(self._engine, reservations).values(
            owner_id=owner_id, key=key, token=1, until=clock_ms() + RESERVED_MS, created_at=now_ms()
        )
        taken = statement.on_conflict_do_update(
            index_elements=["owner_id", "key"],
            set_={"token": reservations.c.token + 1, "until": clock_ms() + RESERVED_MS},
            where=and_(reservations.c.job_id.is_(None), _over(reservations.c.until, RESERVED_MS)),
        ).returning(reservations.c.token)
        with self._engine.begin() as connection:
            token = connection.execute(taken).scalar_one_or_none()
            if token is not None:
                return Reservation(owner_id, key, token)
            row = connection.execute(
                select(reservations.c.job_id, reservations.c.fingerprint).where(
                    reservations.c.owner_id == owner_id, reservations.c.key == key
                )
            ).one_or_none()
        if row is None or row.job_id is None:  # none: it was dropped just now
            raise Refused("idempotency_in_progress", retry_after_s=1)
        return Replay(row.job_id, row.fingerprint)

    def renew_reservation(self, reservation: Reservation) -> None:
        """Keep it while bytes come."""
        with self._engine.begin() as connection:
            connection.execute(update(reservations).where(*_reserved(reservation)).values(until=clock_ms() + RESERVED_MS))

    def drop_reservation(self, reservation: Reservation) -> None:
        """The request was refused: its key is free again."""
        with self._engine.begin() as connection:
            connection.execute(delete(reservations).where(*_reserved(reservation)))

    def sweep_reservations(self) -> int:
        """Remove keys older than a day whose job or batch is gone, or that never had one."""
        old = reservations.c.created_at < now_ms() - KEPT_MS
        orphaned = and_(*(~exists().where(table.c.id == reservations.c.job_id) for table in (jobs, batches)))
        with self._engine.begin() as connection:
            return connection.execute(delete(reservations).where(old, _over(reservations.c.until, RESERVED_MS), orphaned)).rowcount

    # -- the parts of the above -----------------------------------------------------------------------------------------

    def _publish(self, connection: Connection, published: Publications) -> None:
        if not published:
            return
        there = select(jobs.c.id).where(jobs.c.id.in_(sorted(published)), unsettled).order_by(jobs.c.id).with_for_update()
        found = connection.execute(there).scalars().all()  # the others were published by upkeep meanwhile
        if found:
            connection.execute(update(jobs).where(jobs.c.id.in_(found)).values(published_at=now_ms()))
        lying = [row for job_id in found if (row := published[job_id]) is not None]
        if lying:
            connection.execute(self._remember, sorted(lying, key=lambda row: str(row["place"])))

    def _measure(self, connection: Connection, done: Sequence[Success]) -> None:
        """How long the networks of these jobs ran, in the rates of their models."""
        measured: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for success in done:
            if success.device_seconds is not None:
                key = success.job.model_name, success.job.model_version
                measured.setdefault(key, []).append((success.device_seconds, success.job.cost_mpx))
        for (name, version), ran in sorted(measured.items()):
            rate = sum(seconds for seconds, _ in ran) / sum(mpx for _, mpx in ran)
            kept = (1 - LATEST_WEIGHS) ** len(ran)
            connection.execute(self._mean, {"name": name, "version": version, "rate": rate, "kept": kept})

    def _end(self, job: Job, move: Move, event: str, values: Mapping[str, Any], **told: Any) -> bool:
        statement = update(jobs).where(jobs.c.id == job.id, jobs.c.token == job.token, _may(move)).values(**values)
        with self._engine.begin() as connection:
            state = connection.execute(statement.returning(jobs.c.state)).scalar_one_or_none()
            _settle(connection, [job])
        happened = "job.lost" if state is None else "job.failed" if state == State.FAILED else event
        _tell(happened, job, **told)
        return state is not None

    def _reading(self) -> Any:
        return self._reader.connect()


_NEW_FIELDS = (
    "id", "owner_id", "kind", "lane", "task", "model_name", "model_version", "input", "params", "pixels", "max_attempts", "request_id",
    "label", "retry_of", "batch_id", "path", "output", "progress_unit",
)  # fmt: skip

# what every visible change writes, and what every end does
_changed: dict[str, Any] = {"version": jobs.c.version + 1, "changed_at": now_ms()}
_nothing_left = case((jobs.c.output.is_not(None), now_ms()), else_=null())  # an attempt that fails has taken its part away
# an attempt of a training that left more than it found: it does not count, nor do those before it, so that a machine may be switched off
# every night
_went_on = and_(jobs.c.checkpoint_key.is_not(None), jobs.c.checkpoint_key.is_distinct_from(jobs.c.checkpoint_at_claim))
_ended: dict[str, Any] = {"lease_until": None, "worker": None, "finished_at": now_ms(), **_changed}


_SUCCEED = (
    update(jobs)
    .where(jobs.c.id == bindparam("of"), jobs.c.token == bindparam("held"), _STATES[State.RUNNING] == jobs.c.state)
    .values(
        state=State.SUCCEEDED, result=bindparam("result"), result_key=bindparam("result_key"), notes=bindparam("notes"),
        metrics=bindparam("metrics"), progress_done=bindparam("units"), progress_total=bindparam("units"),
        input=func.coalesce(bindparam("read", type_=jobs.c.input.type), jobs.c.input), **_ended,
    )
)  # fmt: skip


def _mean(engine: Engine) -> Any:
    """The rate of a model, of which `kept` is what earlier jobs weigh beside the `rate` of these."""
    rate, kept = bindparam("rate", type_=rates.c.seconds_per_mpx.type), bindparam("kept", type_=rates.c.seconds_per_mpx.type)
    first = upsert(engine, rates).values(
        model_name=bindparam("name"), model_version=bindparam("version"), seconds_per_mpx=rate, changed_at=now_ms()
    )
    mean = rates.c.seconds_per_mpx * kept + rate * (1 - kept)
    return first.on_conflict_do_update(
        index_elements=["model_name", "model_version"], set_={"seconds_per_mpx": mean, "changed_at": now_ms()}
    )


def _tell(event: str, job: Job, **values: Any) -> None:
    """With the id of the request that the job came by: who follows one finds all that became of it."""
    events.emit(event, job_id=job.id, request_id=job.request_id, token=job.token, **values)


def _may(move: Move) -> ColumnElement[bool]:
    """The states this move starts from, by the table in job.py. One is compared with =: that alone finds the partial indexes."""
    states = [_STATES[state] for state in sorted(MOVES[move][0])]
    return jobs.c.state == states[0] if len(states) == 1 else jobs.c.state.in_(states)


def _in_work(row: Any) -> InWork:
    done = row.progress_done / row.progress_total if row.progress_total else 0.0
    return InWork(row.id, row.lane, row.worker, cost_mpx(row.pixels, row.params) * (1 - done))


def _named(row: Any) -> set[str] | None:
    """The blob keys that a row names; None: all of them."""
    if row.state == State.RUNNING or row.fresh:
        return None
    if row.expires_at is not None or (row.kind == Kind.INGEST and row.state in FINAL):  # an archive was unpacked, or never will be
        return set()
    previews = {blob_key(row.id, preview_part(of, row.token)) for of in PREVIEWS}  # of the last attempt
    left = {artifact["key"] for artifact in (row.artifacts or {}).values()}
    return input_keys(row.input) | previews | left | ({row.result_key} - {None})


def _settle(connection: Connection, moved: Sequence[Job]) -> None:
    """Of those jobs that make a model or a data set, and have ended now: it is ready, or failed."""
    _settle_models(connection, moved)
    _settle_datasets(connection, moved)


def _settle_datasets(connection: Connection, moved: Sequence[Job]) -> None:
    """A success made the data set ready by itself (`Success.alongside`)."""
    ingesting = [job.id for job in moved if job.kind == Kind.INGEST and DATASET in job.input]
    if not ingesting:
        return
    ended = select(jobs.c.id, jobs.c.error).where(jobs.c.id.in_(ingesting), jobs.c.state.in_(FINAL - {State.SUCCEEDED})).order_by(jobs.c.id)
    for row in connection.execute(ended).all():
        its = datasets.c.job_id == row.id, datasets.c.state == "ingesting"
        connection.execute(update(datasets).where(*its).values(state="failed", error=row.error, changed_at=now_ms()))


def _settle_models(connection: Connection, moved: Sequence[Job]) -> None:
    """Of those jobs that make a model and have ended now: it is ready if its job succeeded, else it failed."""
    publishing = [job.id for job in moved if job.kind in (Kind.PUBLISH, Kind.TRAIN)]
    if not publishing:
        return
    ended = select(jobs.c.id, jobs.c.state, jobs.c.result_key).where(jobs.c.id.in_(publishing), jobs.c.state.in_(FINAL))
    for row in connection.execute(ended).all():
        connection.execute(
            update(models)
            .where(models.c.job_id == row.id, models.c.state == "preparing")
            .values(state="ready" if row.state == State.SUCCEEDED else "failed", exported_key=row.result_key)
        )


def _attempts(pairs: Iterable[tuple[str, int]]) -> ColumnElement[bool]:
    listed = list(pairs)  # the ids are said twice because SQLite finds no index for pairs
    return and_(jobs.c.id.in_([job_id for job_id, _ in listed]), tuple_(jobs.c.id, jobs.c.token).in_(listed))


def _over(until: ColumnElement[int], longest_ms: int, now: ColumnElement[int] | None = None) -> ColumnElement[bool]:
    """Whether it is later than `until`, which is never set further ahead than `longest_ms`.

    What lies further ahead was set before the clock was stepped back, and is over too, or somebody would wait for the clock
    to come there again. `LATE_MS` are borne: a statement sees what others set after its own time began.
    """
    now = now_ms() if now is None else now
    return or_(until <= now, until > now + (longest_ms + LATE_MS))


def _is_due() -> ColumnElement[bool]:
    """Whether a queued job has waited long enough after a failed attempt."""
    return _over(jobs.c.due_at, int(LONGEST_DELAY_SECONDS * 1000))


def _due(lane: Lane, alone: bool) -> Any:
    """The due rows of a lane in order, as many as a group may hold; what another claim just took is skipped (PostgreSQL)."""
    paused = exists().where(batches.c.id == jobs.c.batch_id, batches.c.state.in_(["paused", "canceled", "failed"]))
    return (
        select(jobs.c.id, jobs.c.turn, jobs.c.pixels, jobs.c.alone)
        .where(jobs.c.lane == lane, jobs.c.state == _queued, _is_due(), or_(jobs.c.batch_id.is_(None), ~paused))
        .where(*([] if alone else [jobs.c.alone.is_(False)]))
        .order_by(jobs.c.turn, jobs.c.id)
        .limit(turns.GROUP_JOBS)
        .with_for_update(skip_locked=True)
    )


def _make_room(connection: Connection, new: NewJob) -> None:
    """For a picture of a batch, whose row is locked: a path in it is one picture, and a retry replaces the job that it retries."""
    there = and_(jobs.c.batch_id == new.batch_id, jobs.c.path == new.path)
    if new.retry_of is not None:
        connection.execute(update(jobs).where(there, jobs.c.id == new.retry_of).values(batch_id=None, **_changed))
    taken = connection.execute(select(jobs.c.id).where(there)).scalar_one_or_none()
    if taken is not None:
        raise Refused("path_taken", f"In the batch “{new.path}” is the job {taken}.")
    connection.execute(delete(items).where(items.c.batch_id == new.batch_id, items.c.path == new.path))  # it was refused before


def _take_turn(connection: Connection, new: NewJob, cost_mpx: float) -> float:
    """Place the job, and as many of its flow as `cost_mpx` is of, behind their flow or at V: the turn of the last of them.

    It is remembered as the last of its flow, whose row is locked until the commit.
    """
    batch = new.batch_id or ""
    place = {"owner": new.owner_id, "batch": batch, "in_lane": new.lane, "cost_mpx": cost_mpx}
    turn: float | None = connection.execute(_TAKE_TURN, place).scalar_one_or_none()
    if turn is None:  # its first job, or two at once
        first = upsert(connection.engine, flows).values(owner_id=new.owner_id, batch_id=batch, lane=new.lane, last_turn=0.0)
        connection.execute(first.on_conflict_do_nothing())
        turn = float(connection.execute(_TAKE_TURN, place).scalar_one())
    return turn


def _give_turn_back(connection: Connection, canceled: Job) -> None:
    """If it was the last of its flow, the flow goes on behind the last that still waits, or at V. Of a batch nothing is given back.

    Two statements: the second must see what those did who held the lock until now.
    """
    if canceled.batch_id is not None:
        return
    flow = {"owner": canceled.owner_id, "batch": "", "in_lane": canceled.lane}
    connection.execute(_LOCK_FLOW, flow)
    connection.execute(_GIVE_TURN_BACK, {**flow, "turn": canceled.turn})


def fulfil(connection: Connection, reservation: Reservation, job_id: str, fingerprint: str) -> bool:
    """The key belongs to what was made, a job or a batch, from now on. False if the reservation was taken over meanwhile."""
    statement = update(reservations).where(*_reserved(reservation)).values(job_id=job_id, fingerprint=fingerprint)
    return connection.execute(statement).rowcount == 1


def _reserved(reservation: Reservation) -> list[ColumnElement[bool]]:
    return [
        reservations.c.owner_id == reservation.owner_id,
        reservations.c.key == reservation.key,
        reservations.c.token == reservation.token,
        reservations.c.job_id.is_(None),
    ]


def _requeued_or_failed(error: dict[str, Any], due_ms: int) -> dict[str, Any]:
    again = or_(jobs.c.attempts < jobs.c.max_attempts, _went_on)
    return {
        "attempts": case((_went_on, 0), else_=jobs.c.attempts),
        "state": case((again, literal(str(State.QUEUED))), else_=literal(str(State.FAILED))),
        "error": case((again, null()), else_=literal(error, JSON(none_as_null=True))),
        "finished_at": case((again, null()), else_=now_ms()),
        "due_at": now_ms() + due_ms,
        "lease_until": None,
        "worker": None,
        **_changed,
    }


def _error(outcome: Outcome) -> dict[str, Any]:
    return {"code": outcome.code, "title": outcome.title, "detail": outcome.detail, "retryable": outcome.retryable}


def _write_metrics(connection: Connection, job_id: str, metrics: Mapping[str, Any] | None) -> None:
    for of in ("output", "input"):
        if metrics and of in metrics:
            connection.execute(insert(job_metrics).values(job_id=job_id, of=of, protocol=metrics["protocol"], **metrics[of]))


def _position(before: int | None) -> int | None:
    """None where nobody waits, or too many do to count."""
    return before if before is not None and before <= POSITIONS else None


def job_of(row: Any) -> Job:
    """Of a row that begins with `COLUMNS`."""
    values: Any = row[: len(FIELDS)]
    return Job(*(*values[:_STATE], State(values[_STATE]), *values[_STATE + 1 :]))


_STATE = FIELDS.index("state")
