"""The moves of batch.py, one statement each, and what a batch holds.

A picture of a batch is a job that names it, and its path in it. Files that became no job have rows of their own.
"""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Connection, Engine, and_, case, exists, func, insert, literal, null, or_, select, union_all, update

from shared import events
from shared.batches.batch import BATCH_MOVES, ENDED, FULL, GOING, SHOWN, Batch, BatchMove, BatchState, Counts, Item, Noted
from shared.database.engine import ONE_SELECT, READ_ONLY, be_alone, now_ms, upsert
from shared.database.tables import batches, flows, items, jobs, lanes, outputs, unsettled
from shared.errors import Refused
from shared.jobs.job import Job, Kind, State
from shared.jobs.store import COLUMNS, Jobs, Reservation, fulfil, job_of

FORGOTTEN_MS = 24 * 3_600_000  # an open batch is sealed when nothing was added for so long

RATED = 500  # pictures that the rate of a batch is measured by, the last that ended

_columns = [batches.c[name] for name in Batch.__dataclass_fields__]
_noted = [items.c[name] for name in Noted.__dataclass_fields__]
STATES = {shown: state for state, shown in SHOWN.items()}
_SHOWN: dict[str, str] = {str(state): shown for state, shown in SHOWN.items()}


class Batches:
    """The store. Methods are safe from any thread and any process."""

    def __init__(self, engine: Engine, jobs_: Jobs) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**READ_ONLY)
        self._looker = engine.execution_options(**ONE_SELECT)
        self._jobs = jobs_

    def create(
        self, batch_id: str, owner_id: str, label: str | None, reservation: Reservation | None = None, fingerprint: str = ""
    ) -> Batch:
        """An open batch. Raises `Refused("idempotency_in_progress")` if the reservation was taken over meanwhile."""
        statement = insert(batches).values(
            id=batch_id, owner_id=owner_id, state=BatchState.OPEN, label=label, params={}, created_at=now_ms(), changed_at=now_ms()
        )
        with self._engine.begin() as connection:
            if reservation is not None and not fulfil(connection, reservation, batch_id, fingerprint):
                raise Refused("idempotency_in_progress", retry_after_s=1)
            created = _batch(connection.execute(statement.returning(*_columns)).one())
        events.emit("batch.created", batch_id=batch_id)
        return created

    def listing(self, batch_id: str, owner_id: str, label: str | None, params: dict[str, Any]) -> Callable[[Connection], None]:
        """What makes a batch of a folder or an archive, for `Jobs.accept` to do alongside the job that lists it.

        It raises `Refused("output_busy")` while another one writes into the same folder, or one around or within it.
        """
        values = {"id": batch_id, "owner_id": owner_id, "state": BatchState.LISTING, "label": label, "params": params}

        def make(connection: Connection) -> None:
            if "out" in params:
                be_alone(connection)
                _require_free(connection, owner_id, PurePosixPath(params["out"]))
            connection.execute(insert(batches).values(**values, created_at=now_ms(), changed_at=now_ms()))

        return make

    def note(self, owner_id: str, batch_id: str, noted: Noted) -> None:
        """Of an upload that was refused. It raises `Refused` batch_not_found or batch_not_open."""
        with self._engine.begin() as connection:
            self.joining(owner_id, batch_id)(connection)
            self._note(connection, batch_id, [noted])

    def note_found(self, listing: Job, found: Sequence[Noted]) -> None:
        """Of files that the attempt `listing` found; nothing, if it is no longer ours."""
        ours = select(jobs.c.id).where(jobs.c.id == listing.id, jobs.c.token == listing.token, jobs.c.state == State.RUNNING)
        with self._engine.begin() as connection:
            if found and connection.execute(ours.with_for_update()).first() is not None:
                self._note(connection, listing.batch_id or "", found)

    def joining(self, owner_id: str, batch_id: str) -> Callable[[Connection], None]:
        """What lets a picture into a batch, for `Jobs.accept` to do alongside. It raises `Refused` batch_not_found or batch_not_open."""

        def join(connection: Connection) -> None:
            mine = and_(batches.c.id == batch_id, batches.c.owner_id == owner_id)
            if connection.execute(update(batches).where(mine, batches.c.state == BatchState.OPEN).values(changed_at=now_ms())).rowcount:
                return
            state = connection.execute(select(batches.c.state).where(mine)).scalar_one_or_none()
            if state is None:
                raise Refused("batch_not_found")
            raise Refused("batch_not_open", f"The batch is {state}: pictures are added to an open one.")

        return join

    def rejoining(self, owner_id: str, batch_id: str) -> Callable[[Connection], None]:
        """RETRY: the same for a picture that takes the place of one that has ended. A batch that had ended goes on.

        It raises `Refused("batch_not_open")` if the batch was canceled, and output_busy if it had ended and another one writes into
        its folder now.
        """
        ended = batches.c.state.in_(sorted(ENDED))
        statement = (
            update(batches)
            .where(batches.c.id == batch_id, batches.c.owner_id == owner_id, _from(BatchMove.RETRY))
            .values(
                state=case((ended, literal(str(BatchState.RUNNING))), else_=batches.c.state),
                finished_at=case((ended, null()), else_=batches.c.finished_at),
                changed_at=now_ms(),
            )
        )

        def rejoin(connection: Connection) -> None:
            out = connection.execute(statement.returning(batches.c.params["out"].as_string())).one_or_none()
            if out is None:
                raise Refused("batch_not_open", "Its batch was canceled; send the picture again by itself.")
            if out[0] is not None:
                be_alone(connection)
                _require_free(connection, owner_id, PurePosixPath(out[0]), batch_id)

        return rejoin

    # -- the moves ------------------------------------------------------------------------------------------------------

    def seal(self, owner_id: str, batch_id: str) -> Batch | None:
        """SEAL: nothing is added any more. None if it was not open."""
        sealed = self._move(owner_id, batch_id, BatchMove.SEAL, state=BatchState.RUNNING)
        if sealed is not None:
            self.finish([batch_id])
        return sealed

    def listed(self, batch_id: str) -> None:
        """LISTED: all of it was found."""
        moved = update(batches).where(batches.c.id == batch_id, _from(BatchMove.LISTED))
        with self._engine.begin() as connection:
            connection.execute(moved.values(state=BatchState.RUNNING, changed_at=now_ms()))

    def fail_unlisted(self) -> None:
        """FAIL: what the job that should have listed it failed at, or that somebody canceled it. Its reason is the code of that."""
        why = (
            select(func.coalesce(jobs.c.error["code"].as_string(), "canceled"))
            .where(jobs.c.batch_id == batches.c.id, jobs.c.path.is_(None), jobs.c.kind == Kind.INGEST)
            .where(jobs.c.state.in_([State.FAILED, State.CANCELED]))
            .where(jobs.c.input["format"].as_string() != "retry")  # of which the others are none the worse
            .limit(1)
            .scalar_subquery()
        )
        going = update(batches).where(_from(BatchMove.FAIL), why.is_not(None))
        with self._engine.begin() as connection:
            moved = going.values(state=BatchState.FAILED, reason=why, changed_at=now_ms(), finished_at=now_ms())
            failed = connection.execute(moved.returning(batches.c.id)).scalars().all()
        for batch_id in failed:
            events.emit("batch.moved", batch_id=batch_id, state=BatchState.FAILED)

    def pause_full(self, batch_id: str) -> None:
        """PAUSE: its outputs have no room. `paused_full` are looked after until they have."""
        moved = update(batches).where(batches.c.id == batch_id, _from(BatchMove.PAUSE))
        with self._engine.begin() as connection:
            if connection.execute(moved.values(state=BatchState.PAUSED, reason=FULL, changed_at=now_ms())).rowcount:
                events.emit("batch.moved", batch_id=batch_id, state=BatchState.PAUSED, reason=FULL)

    def paused_full(self) -> list[Batch]:
        """Those that `pause_full` paused, and nobody since."""
        with self._looker.connect() as connection:
            found = select(*_columns).where(batches.c.state == BatchState.PAUSED, batches.c.reason == FULL)
            return [_batch(row) for row in connection.execute(found)]

    def pause(self, owner_id: str, batch_id: str) -> Batch | None:
        """PAUSE: what runs ends, nothing else begins. None if it does not run."""
        return self._move(owner_id, batch_id, BatchMove.PAUSE, state=BatchState.PAUSED, reason=None)

    def resume(self, owner_id: str, batch_id: str) -> Batch | None:
        """RESUME: on from where the others are. None if it was not paused."""
        resumed = self._move(owner_id, batch_id, BatchMove.RESUME, self._catch_up, state=BatchState.RUNNING, reason=None)
        if resumed is not None:
            self.finish([batch_id])
        return resumed

    def cancel(self, owner_id: str, batch_id: str) -> Batch | None:
        """CANCEL: at once, and with it all that has not ended. None if it was over already."""
        canceled = self._move(owner_id, batch_id, BatchMove.CANCEL, state=BatchState.CANCELED, finished_at=now_ms())
        if canceled is not None:
            self.cancel_rest()
        return canceled

    def cancel_rest(self) -> None:
        """Cancel what has not ended of canceled and failed batches; what was interrupted in the middle of it is found again."""
        over = batches.c.state.in_([BatchState.CANCELED, BatchState.FAILED])
        left = select(batches.c.id).where(over, or_(_has(State.RUNNING), _has(State.QUEUED)))
        with self._looker.connect() as connection:
            found = connection.execute(left).scalars().all()
        for batch_id in found:
            self._jobs.cancel_batch(batch_id)

    def finish(self, batch_ids: Sequence[str] | None = None) -> list[str]:
        """FINISH: of those batches, or all, the running ones whose last picture has ended; which they were."""
        named = [] if batch_ids is None else [batches.c.id.in_(batch_ids)]
        settled = ~exists().where(jobs.c.batch_id == batches.c.id, unsettled)
        over = and_(_from(BatchMove.FINISH), ~_has(State.QUEUED), ~_has(State.RUNNING), settled)
        refused = exists().where(items.c.batch_id == batches.c.id, items.c.state == "failed")
        state = case((or_(_has(State.FAILED), refused), literal(str(BatchState.WITH_ERRORS))), else_=literal(str(BatchState.SUCCEEDED)))
        with self._engine.begin() as connection:
            locked = select(batches.c.id).where(over, *named).order_by(batches.c.id).with_for_update()
            ids = connection.execute(locked).scalars().all()
            statement = (  # a second look: it sees what those did who held the locks until now
                update(batches)
                .where(batches.c.id.in_(ids), over)
                .values(state=state, finished_at=now_ms(), changed_at=now_ms())
                .returning(batches.c.id, batches.c.state)
            )
            finished = connection.execute(statement).all() if ids else []
        for row in finished:
            events.emit("batch.moved", batch_id=row.id, state=row.state)
        return [row.id for row in finished]

    def seal_forgotten(self) -> int:
        """Seal the open batches to which nothing was added for a day; how many."""
        old = and_(_from(BatchMove.SEAL), batches.c.changed_at < now_ms() - FORGOTTEN_MS)
        with self._engine.begin() as connection:
            return connection.execute(update(batches).where(old).values(state=BatchState.RUNNING, changed_at=now_ms())).rowcount

    # -- reading --------------------------------------------------------------------------------------------------------

    def get(self, owner_id: str, batch_id: str) -> Batch | None:
        """That owner's batch, if there is one."""
        with self._looker.connect() as connection:
            row = connection.execute(select(*_columns).where(batches.c.id == batch_id, batches.c.owner_id == owner_id)).one_or_none()
        return None if row is None else _batch(row)

    def page(self, owner_id: str, limit: int, before: str | None) -> list[Batch]:
        """Newest first, at most `limit`, older than the batch `before`."""
        older = [] if before is None else [batches.c.id < before]
        statement = select(*_columns).where(batches.c.owner_id == owner_id, *older).order_by(batches.c.id.desc()).limit(limit)
        with self._looker.connect() as connection:
            return [_batch(row) for row in connection.execute(statement)]

    def counts(self, batch_ids: Sequence[str]) -> dict[str, Counts]:
        """Of each of those batches."""
        found: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
        of_jobs, of_items = jobs.c.batch_id.in_(batch_ids), items.c.batch_id.in_(batch_ids)
        each = union_all(  # one statement sees one moment, on PostgreSQL too
            select(jobs.c.batch_id, jobs.c.state, func.count()).where(of_jobs).group_by(jobs.c.batch_id, jobs.c.state),
            # what lists a batch is no file of it; counted apart, as without a path only these few rows are read
            select(jobs.c.batch_id, jobs.c.state, -func.count())
            .where(of_jobs, jobs.c.path.is_(None))
            .group_by(jobs.c.batch_id, jobs.c.state),
            select(items.c.batch_id, items.c.state, func.count()).where(of_items).group_by(items.c.batch_id, items.c.state),
        )
        with self._looker.connect() as connection:
            for batch_id, state, count in connection.execute(each):
                shown = _SHOWN.get(state, state)
                found[batch_id][shown] = found[batch_id].get(shown, 0) + count
        return {batch_id: Counts(**counted) for batch_id, counted in found.items()}

    def rate(self, batch: Batch) -> float | None:
        """Pictures a second, by the last that ended since the batch came into its state; None while too few have."""
        since = batch.changed_at if batch.state == BatchState.RUNNING else batch.created_at
        ended = (
            select(jobs.c.finished_at)
            .where(jobs.c.batch_id == batch.id, jobs.c.finished_at > since, jobs.c.path.is_not(None))
            .order_by(jobs.c.finished_at.desc())
            .limit(RATED)
        )
        with self._looker.connect() as connection:
            times = connection.execute(ended).scalars().all()
        took_ms = times[0] - times[-1] if times else 0
        return (len(times) - 1) / took_ms * 1000 if took_ms > 0 else None

    def items(self, batch_id: str, state: str | None, limit: int, after: str) -> list[Item]:
        """The files of a batch in the order of their paths, at most `limit`, behind the path `after`; of that state, if one is given."""
        picture = [jobs.c.batch_id == batch_id, jobs.c.path > after]
        other = [items.c.batch_id == batch_id, items.c.path > after]
        if state is not None:
            picture.append(jobs.c.state == STATES[state] if state in STATES else jobs.c.id.is_(None))
            other.append(items.c.state == state)
        both = [
            select(table.c.path).where(*wanted).order_by(table.c.path).limit(limit).subquery()
            for table, wanted in ((jobs, picture), (items, other))
        ]
        first = union_all(*(select(each.c.path) for each in both)).subquery()
        with self._reader.connect() as connection:
            paths = connection.execute(select(first.c.path).order_by(first.c.path).limit(limit)).scalars().all()
            of_jobs = select(*COLUMNS).where(jobs.c.batch_id == batch_id, jobs.c.path.in_(paths))
            of_others = select(*_noted).where(items.c.batch_id == batch_id, items.c.path.in_(paths))
            found = {row.path: Item(row.path, noted=Noted(**row._mapping)) for row in connection.execute(of_others)}
            found |= {row.path: Item(row.path, job=job_of(row)) for row in connection.execute(of_jobs)}
        return [found[path] for path in paths if path in found]

    def known_outputs(self, places: Sequence[str]) -> dict[str, Any]:
        """What is recorded of these outputs: rows of the table, by place."""
        with self._looker.connect() as connection:
            return {row.place: row for row in connection.execute(select(outputs).where(outputs.c.place.in_(places)))}

    def pictures(self, batch_id: str, paths: Sequence[str]) -> set[str]:
        """Which of these paths are jobs of the batch."""
        there = select(jobs.c.path).where(jobs.c.batch_id == batch_id, jobs.c.path.in_(paths))
        with self._looker.connect() as connection:
            return set(connection.execute(there).scalars())

    def known(self, batch_id: str) -> Batch | None:
        """The batch, whoever's it is."""
        with self._looker.connect() as connection:
            row = connection.execute(select(*_columns).where(batches.c.id == batch_id)).one_or_none()
        return None if row is None else _batch(row)

    # -- the parts of the above -----------------------------------------------------------------------------------------

    def _note(self, connection: Connection, batch_id: str, noted: Sequence[Noted]) -> None:
        """What is a job meanwhile stays one."""
        paths = [each.path for each in noted]
        there = set(connection.execute(select(jobs.c.path).where(jobs.c.batch_id == batch_id, jobs.c.path.in_(paths))).scalars())
        rows = [{**vars(each), "batch_id": batch_id} for each in noted if each.path not in there]
        for row in rows:
            del row["noted_at"]
        if rows:
            statement = upsert(self._engine, items).values(noted_at=now_ms())
            changed = {name: statement.excluded[name] for name in ("state", "error", "bytes", "sha256", "note", "noted_at")}
            connection.execute(statement.on_conflict_do_update(index_elements=["batch_id", "path"], set_=changed), rows)

    def _move(
        self, owner_id: str, batch_id: str, move: BatchMove, alongside: Callable[[Connection, str], None] | None = None, **values: Any
    ) -> Batch | None:
        mine = and_(batches.c.id == batch_id, batches.c.owner_id == owner_id)
        statement = update(batches).where(mine, _from(move)).values(changed_at=now_ms(), **values).returning(*_columns)
        with self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
            if row is not None and alongside is not None:
                alongside(connection, batch_id)
        if row is None:
            return None
        events.emit("batch.moved", batch_id=batch_id, state=row.state)
        return _batch(row)

    def _catch_up(self, connection: Connection, batch_id: str) -> None:
        """What waited while the batch was paused would else come before all that others sent meanwhile: it goes on at V."""
        waiting = and_(jobs.c.batch_id == batch_id, jobs.c.state == State.QUEUED)
        first = select(jobs.c.lane, func.min(jobs.c.turn).label("first"), lanes.c.v).join(lanes, lanes.c.name == jobs.c.lane)
        for row in connection.execute(first.where(waiting).group_by(jobs.c.lane, lanes.c.v)).all():
            late = row.v - row.first
            if late > 0:
                connection.execute(update(jobs).where(waiting, jobs.c.lane == row.lane).values(turn=jobs.c.turn + late))
                its_flow = and_(flows.c.batch_id == batch_id, flows.c.lane == row.lane)
                connection.execute(update(flows).where(its_flow).values(last_turn=flows.c.last_turn + late))


def _require_free(connection: Connection, owner_id: str, out: PurePosixPath, but: str = "") -> None:
    """Of all batches `but` that one. Raises `Refused("output_busy")`."""
    going = select(batches.c.id, batches.c.owner_id, batches.c.params["out"].as_string().label("out"))
    for row in connection.execute(going.where(batches.c.state.in_(sorted(GOING)), batches.c.id != but)):
        other = PurePosixPath(row.out or "")
        if row.out and (other == out or other in out.parents or out in other.parents):
            raise Refused("output_busy", f"It is the batch {row.id}." if row.owner_id == owner_id else None)


def _from(move: BatchMove) -> Any:
    return batches.c.state.in_(sorted(BATCH_MOVES[move][0]))


def _has(state: State) -> Any:
    return exists().where(jobs.c.batch_id == batches.c.id, jobs.c.state == state)


def _batch(row: Any) -> Batch:
    values = dict(row._mapping)
    return Batch(**values | {"state": BatchState(values["state"])})
