"""Which data sets there are. A row follows the job that makes it ready, as that of a model does.

A set never changes once it is ready. Who accepts a job that learns from one, or measures with it, keeps its id in
`jobs.input["dataset"]` and lets `held` be done alongside: then nobody can delete it before the job has ended.
"""

import builtins
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, exists, insert, select, update

from shared import events
from shared.database.engine import ONE_SELECT, now_ms
from shared.database.tables import datasets, jobs
from shared.errors import Refused
from shared.jobs.job import DATASET, FINAL, Job, Kind, State

NAMED_JOBS = 3  # that a refusal lists
USERS = (Kind.INGEST, Kind.TRAIN, Kind.EVALUATE)


@dataclass(frozen=True)
class Dataset:
    """One row, but for its report. What is None is known once the set is ready; `counts` once it was looked through."""

    id: str
    owner_id: str
    kind: str  # clean, paired or noisy
    state: str  # ingesting, ready or failed
    label: str | None
    job_id: str  # of the job that makes it ready
    sha256: str | None  # of the contents
    images: int | None  # in a paired set, pairs
    pixels: int | None  # of all of them; of a pair those of one
    bytes: int | None  # of its blobs
    index_key: str | None  # the blobs of shared/datasets/packed.py
    pixels_key: str | None
    counts: dict[str, Any] | None  # what the report tells, in numbers
    error: dict[str, Any] | None  # why it failed; none where its job was canceled
    created_at: int


@dataclass(frozen=True)
class Contents:
    """What an attempt made of a set."""

    sha256: str
    images: int
    pixels: int
    bytes: int
    index_key: str
    pixels_key: str


class Datasets:
    """The store. Methods are safe from any thread and any process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._looker = engine.execution_options(**ONE_SELECT)

    def ingesting(self, dataset_id: str, job_id: str, owner_id: str, kind: str, label: str | None) -> Callable[[Connection], None]:
        """What makes the row of a set that `job_id` will make ready, for `Jobs.accept` to do alongside."""
        values = {"id": dataset_id, "job_id": job_id, "owner_id": owner_id, "kind": kind, "label": label, "state": "ingesting"}

        def make(connection: Connection) -> None:
            connection.execute(insert(datasets).values(**values, created_at=now_ms(), changed_at=now_ms()))

        return make

    def ready(self, job: Job, contents: Contents, counts: dict[str, Any], report: dict[str, Any]) -> Callable[[Connection], None]:
        """What makes a set ready, for `Success.alongside`: so only the attempt that succeeds does it."""
        values = {**vars(contents), "counts": counts, "report": report}

        def make_ready(connection: Connection) -> None:
            its = datasets.c.job_id == job.id, datasets.c.state == "ingesting"
            connection.execute(update(datasets).where(*its).values(**values, state="ready", changed_at=now_ms()))

        return make_ready

    def tell(self, job: Job, counts: dict[str, Any], report: dict[str, Any]) -> None:
        """Keep the report of an attempt that is going to fail; nothing, if it is no longer ours."""
        ours = exists().where(jobs.c.id == job.id, jobs.c.token == job.token, jobs.c.state == State.RUNNING)
        its = datasets.c.job_id == job.id, datasets.c.state == "ingesting"
        with self._engine.begin() as connection:
            connection.execute(update(datasets).where(*its, ours).values(counts=counts, report=report, changed_at=now_ms()))

    def get(self, dataset_id: str, owner_id: str) -> Dataset | None:
        """That owner's data set, in whatever state."""
        with self._looker.connect() as connection:
            row = connection.execute(select(*_columns).where(*_its(dataset_id, owner_id))).one_or_none()
        return None if row is None else Dataset(*row)

    def page(self, owner_id: str, limit: int, before: str | None) -> builtins.list[Dataset]:
        """Newest first, at most `limit`, older than the set `before`."""
        statement = select(*_columns).where(datasets.c.owner_id == owner_id)
        if before is not None:
            statement = statement.where(datasets.c.id < before)
        with self._looker.connect() as connection:
            return [Dataset(*row) for row in connection.execute(statement.order_by(datasets.c.id.desc()).limit(limit))]

    def report(self, dataset_id: str, owner_id: str) -> dict[str, Any] | None:
        """What was found in that owner's set; None as long as nobody looked through all of it."""
        with self._looker.connect() as connection:
            found = connection.execute(select(datasets.c.report).where(*_its(dataset_id, owner_id))).scalar_one_or_none()
        return found if found is None else dict(found)

    def held(self, dataset_id: str, owner_id: str) -> Callable[[Connection], None]:
        """What keeps a set until a job that names it is there, for `Jobs.accept` to do alongside.

        It raises `Refused` unknown_dataset or dataset_not_ready, and names the field.
        """

        def hold(connection: Connection) -> None:
            its = select(datasets.c.state).where(*_its(dataset_id, owner_id)).with_for_update(read=True, key_share=True)
            state = connection.execute(its).scalar_one_or_none()
            if state != "ready":
                raise _unusable(dataset_id, state)

        return hold

    def usable(self, dataset_id: str, owner_id: str) -> Dataset:
        """The set, to check a job against before it is accepted. Raises `Refused` as what `held` gives does."""
        found = self.get(dataset_id, owner_id)
        if found is None or found.state != "ready":
            raise _unusable(dataset_id, None if found is None else found.state)
        return found

    def users(self, dataset_id: str, owner_id: str) -> builtins.list[str]:
        """The jobs that have not ended and name it: the one that fills it, and those that learn from it or measure with it."""
        with self._looker.connect() as connection:
            return _users(connection, dataset_id, owner_id)

    def delete(self, owner_id: str, dataset_id: str) -> Dataset:
        """Remove the row of that owner's set; what it was. The caller deletes the blobs.

        Raises `Refused("dataset_not_found")`, or `Refused("in_use")` while a job that has not ended names it.
        """
        its = _its(dataset_id, owner_id)
        with self._engine.begin() as connection:
            row = connection.execute(select(*_columns).where(*its).with_for_update()).one_or_none()  # waits for jobs being accepted
            if row is None:
                raise Refused("dataset_not_found")
            if users := _users(connection, dataset_id, owner_id):
                named = ", ".join(users[:NAMED_JOBS]) + (", and others" if len(users) > NAMED_JOBS else "")
                raise Refused("in_use", f"Wait for these jobs, or cancel them: {named}.")
            connection.execute(delete(datasets).where(*its))
        events.emit("dataset.deleted", dataset_id=dataset_id)
        return Dataset(*row)

    def kept_parts(self, ids: Iterable[str]) -> dict[str, set[str] | None]:
        """Of each set that exists, the blob keys that its row names; None means all of them: it is being filled."""
        named = select(datasets.c.id, datasets.c.state, datasets.c.index_key, datasets.c.pixels_key)
        with self._looker.connect() as connection:
            rows = connection.execute(named.where(datasets.c.id.in_(builtins.list(ids))))
            return {row.id: None if row.state == "ingesting" else {row.index_key, row.pixels_key} - {None} for row in rows}


_columns = [datasets.c[name] for name in Dataset.__dataclass_fields__]


def _its(dataset_id: str, owner_id: str) -> tuple[Any, Any]:
    return datasets.c.id == dataset_id, datasets.c.owner_id == owner_id


def _unusable(dataset_id: str, state: str | None) -> Refused:
    """Why no job may name a set in this state; None: there is none."""
    if state is None:
        there_is_none = f"There is no data set “{dataset_id[:100]}”. GET /v1/datasets lists yours."
        return Refused("unknown_dataset", there_is_none, fields={DATASET: "unknown"})
    advice = "Wait for its job" if state == "ingesting" else "Look at its report, and send it again"
    return Refused("dataset_not_ready", f"The data set {dataset_id} is {state}. {advice}.", fields={DATASET: "not ready"})


def _users(connection: Connection, dataset_id: str, owner_id: str) -> builtins.list[str]:
    waiting = select(jobs.c.id).where(
        jobs.c.owner_id == owner_id, jobs.c.state.in_(sorted(set(State) - FINAL)), jobs.c.kind.in_(USERS),
        jobs.c.input[DATASET].as_string() == dataset_id,
    )  # fmt: skip
    return builtins.list(connection.execute(waiting.order_by(jobs.c.id).limit(NAMED_JOBS + 1)).scalars())
