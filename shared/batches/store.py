"""The moves of batch.py, one statement each, and what a batch holds. A picture of a batch is a job that names it, and its path in it."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, and_, case, exists, func, insert, literal, null, or_, select, update

from shared import events
from shared.batches.batch import BATCH_MOVES, ENDED, SHOWN, Batch, BatchMove, BatchState, Counts
from shared.database.engine import ONE_SELECT, now_ms
from shared.database.tables import batches, flows, jobs, lanes
from shared.errors import Refused
from shared.jobs.job import State
from shared.jobs.store import Jobs, Reservation, fulfil

FORGOTTEN_MS = 24 * 3_600_000  # an open batch is sealed when nothing was added for so long

_columns = [batches.c[name] for name in Batch.__dataclass_fields__]


class Batches:
    """The store. Methods are safe from any thread and any process."""

    def __init__(self, engine: Engine, jobs_: Jobs) -> None:
        self._engine = engine
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

        It raises `Refused("batch_not_open")` if the batch was canceled.
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
            if not connection.execute(statement).rowcount:
                raise Refused("batch_not_open", "Its batch was canceled; send the picture again by itself.")

        return rejoin

    # -- the moves ------------------------------------------------------------------------------------------------------

    def seal(self, owner_id: str, batch_id: str) -> Batch | None:
        """SEAL: nothing is added any more. None if it was not open."""
        sealed = self._move(owner_id, batch_id, BatchMove.SEAL, state=BatchState.RUNNING)
        if sealed is not None:
            self.finish([batch_id])
        return sealed

    def pause(self, owner_id: str, batch_id: str) -> Batch | None:
        """PAUSE: what runs ends, nothing else begins. None if it does not run."""
        return self._move(owner_id, batch_id, BatchMove.PAUSE, state=BatchState.PAUSED)

    def resume(self, owner_id: str, batch_id: str) -> Batch | None:
        """RESUME: on from where the others are. None if it was not paused."""
        resumed = self._move(owner_id, batch_id, BatchMove.RESUME, self._catch_up, state=BatchState.RUNNING)
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
        """Cancel what has not ended of canceled batches; what was interrupted in the middle of it is found again."""
        left = select(batches.c.id).where(batches.c.state == BatchState.CANCELED, or_(_has(State.RUNNING), _has(State.QUEUED)))
        with self._looker.connect() as connection:
            found = connection.execute(left).scalars().all()
        for batch_id in found:
            self._jobs.cancel_batch(batch_id)

    def finish(self, batch_ids: Sequence[str] | None = None) -> list[str]:
        """FINISH: of those batches, or all, the running ones whose last picture has ended; which they were."""
        named = [] if batch_ids is None else [batches.c.id.in_(batch_ids)]
        over = and_(_from(BatchMove.FINISH), ~_has(State.QUEUED), ~_has(State.RUNNING))
        state = case((_has(State.FAILED), literal(str(BatchState.WITH_ERRORS))), else_=literal(str(BatchState.SUCCEEDED)))
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
        statement = (
            select(jobs.c.batch_id, jobs.c.state, func.count())
            .where(jobs.c.batch_id.in_(batch_ids))
            .group_by(jobs.c.batch_id, jobs.c.state)
        )
        with self._looker.connect() as connection:
            for batch_id, state, count in connection.execute(statement):
                found[batch_id][SHOWN[State(state)]] = count
        return {batch_id: Counts(**counted) for batch_id, counted in found.items()}

    # -- the parts of the above -----------------------------------------------------------------------------------------

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


def _from(move: BatchMove) -> Any:
    return batches.c.state.in_(sorted(BATCH_MOVES[move][0]))


def _has(state: State) -> Any:
    return exists().where(jobs.c.batch_id == batches.c.id, jobs.c.state == state)


def _batch(row: Any) -> Batch:
    values = dict(row._mapping)
    return Batch(**values | {"state": BatchState(values["state"])})
