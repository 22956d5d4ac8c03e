"""Which models there are: registration, names and what they resolve to."""

import builtins
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, bindparam, delete, insert, or_, select
from sqlalchemy.exc import IntegrityError

from shared.database.engine import READ_ONLY, be_alone, now_ms
from shared.database.tables import aliases, defaults, models
from shared.errors import Fault, Refused
from shared.jobs.job import blob_key
from shared.models.manifest import Manifest

WEIGHTS = "weights"  # the part of a model's blobs that holds them


@dataclass(frozen=True)
class Model:
    """A version as it is registered. Without an `id` its files come with Lacuna; else they are blobs."""

    manifest: Manifest
    state: str  # preparing, ready or failed
    id: str | None
    job_id: str | None  # of the job that makes it ready
    exported_key: str | None  # the blob of its exported network

    @property
    def weights_key(self) -> str:
        """The blob of its weights. Only of models with an id."""
        if self.id is None:
            raise ValueError(f"the weights of {self.manifest.reference} are no blob")
        return blob_key(self.id, WEIGHTS)


class Models:
    """The registry. A published version never changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, manifests: builtins.list[Manifest]) -> None:
        """Add shipped versions that are not there yet; the newest of a task's first name becomes its default if it has none.

        Raises `Fault("artifact_invalid")` if a version that is there came with other weights.
        """
        newest: dict[str, Manifest] = {}  # task → of the first name given
        with self._engine.begin() as connection:
            be_alone(connection)
            added = models.c.id.is_not(None)
            names = {found.name for found in manifests}
            connection.execute(delete(models).where(models.c.name.in_(names), added, models.c.state == "failed"))
            users = set(connection.execute(select(models.c.name).where(models.c.name.in_(names), added)).scalars())
            for found in manifests:
                if found.name in users:  # theirs from before we shipped a model of that name: it stays theirs
                    continue
                row = connection.execute(
                    select(models.c.manifest).where(models.c.name == found.name, models.c.version == found.version)
                ).one_or_none()
                if row is None:
                    values = {"name": found.name, "version": found.version, "task": found.task, "manifest": found.model_dump(by_alias=True)}
                    connection.execute(insert(models).values(**values, state="ready", created_at=now_ms()))
                elif row.manifest["weights_sha256"] != found.weights_sha256:
                    raise Fault(
                        "artifact_invalid",
                        f"{found.reference} is registered with other weights, and a version never changes. "
                        "Install the Lacuna that made this home, or start a new one with LACUNA_HOME.",
                    )
                so_far = newest.setdefault(found.task, found)
                if found.name == so_far.name and found.version > so_far.version:
                    newest[found.task] = found
            for task, found in newest.items():
                if connection.execute(select(defaults.c.name).where(defaults.c.task == task)).one_or_none() is None:
                    connection.execute(insert(defaults).values(task=task, name=found.name, version=found.version))

    def preparing(self, described: Manifest, model_id: str, job_id: str, owner_id: str) -> Callable[[Connection], None]:
        """What registers a version that `job_id` will make ready, for `Jobs.accept` to do alongside.

        It raises `Refused("model_exists")`; a version that failed gives its name away.
        """

        def register(connection: Connection) -> None:
            same = (models.c.name == described.name) & (models.c.version == described.version)
            shipped = select(models.c.version).where(models.c.name == described.name, models.c.id.is_(None))
            if connection.execute(shipped.limit(1)).first() is not None:
                raise Refused("model_exists", f"“{described.name}” is the name of a model that comes with Lacuna. Give yours another.")
            connection.execute(delete(models).where(same, models.c.state == "failed"))
            values = {"name": described.name, "version": described.version, "task": described.task}
            try:
                connection.execute(
                    insert(models).values(
                        **values, manifest=described.model_dump(by_alias=True), owner_id=owner_id, state="preparing", id=model_id,
                        job_id=job_id, created_at=now_ms(),
                    )
                )  # fmt: skip
            except IntegrityError as error:
                raise Refused("model_exists", f"{described.reference} stays as it is: give this one another number.") from error

        return register

    def get(self, name: str, version: int) -> Model | None:
        """That version, in whatever state."""
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            row = connection.execute(_columns().where(models.c.name == name, models.c.version == version)).one_or_none()
        return _model(row) if row is not None else None

    def list(self, owner_id: str | None = None) -> builtins.list[Model]:
        """Every version, by name and version; those that an owner sees, if one is named: their own and the shipped ones."""
        statement = _columns() if owner_id is None else _columns().where(_seen)
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            rows = connection.execute(statement.order_by(models.c.name, models.c.version), {} if owner_id is None else {"owner": owner_id})
            return [_model(row) for row in rows]

    def kept_parts(self, ids: Iterable[str]) -> dict[str, set[str] | None]:
        """Of each model that exists, the blob keys that its row names; None means all of them: it is being prepared."""
        named = select(models.c.id, models.c.state, models.c.exported_key).where(models.c.id.in_(builtins.list(ids)))
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return {row.id: _named(row.id, row.state, row.exported_key) for row in connection.execute(named)}

    def defaults(self) -> dict[str, str]:
        """Task → the version used where no model is named: `{"denoise": "denoise@1"}`."""
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return {row.task: f"{row.name}@{row.version}" for row in connection.execute(select(defaults))}

    def aliases(self, found: Manifest) -> builtins.list[str]:
        """The aliases of a version."""
        statement = select(aliases.c.alias).where(aliases.c.name == found.name, aliases.c.version == found.version)
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return sorted(connection.execute(statement).scalars())

    def resolve(self, task: str, wanted: str | None, owner_id: str) -> Manifest:
        """The version that `wanted` names, of those that the owner sees: none = the task's default; `name`, `name@alias`, `name@version`.

        A bare name is its alias `prod` if that is set, else its newest ready version.
        Raises `Refused("unknown_model")`, or `Refused("model_task")` for a model that does another task.
        """
        name, _, version = (wanted or "").partition("@")
        statement, values = _DEFAULT, dict[str, str | int]()
        if re.fullmatch("[0-9]{1,9}", version):  # not isdigit(): `²` is a digit, and no number; longer ones overflow the column
            statement, values = _VERSION, {"name": name, "version": int(version)}
        elif wanted:
            statement, values = _ALIASED if version else _NAMED, {"name": name, "alias": version or "prod"}
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            row = connection.execute(statement, {"task": task, "owner": owner_id, **values}).first()
        if row is None:
            ready = [found.manifest for found in self.list(owner_id) if found.state == "ready"]
            known = ", ".join(found.reference for found in ready if found.task == task)
            if other := next((found for found in ready if found.name == name and found.task != task), None):
                does = f"{other.name} does {other.task}, not {task}; there are: {known or 'none'}."
                raise Refused("model_task", does, fields={"model": f"for {other.task}"})
            what = f"“{wanted[:140]}”" if wanted else "a default model"
            raise Refused("unknown_model", f"There is no {what} for {task}; there are: {known or 'none'}.", fields={"model": "unknown"})
        return Manifest.model_validate(row.manifest)


# made once: every picture that is sent asks for a model
_seen = or_(models.c.owner_id.is_(None), models.c.owner_id == bindparam("owner"))  # what comes with Lacuna belongs to nobody
_ready = select(models.c.manifest).where(models.c.state == "ready", models.c.task == bindparam("task"), _seen).limit(1)
_default = and_(models.c.name == defaults.c.name, models.c.version == defaults.c.version, defaults.c.task == bindparam("task"))
_alias = and_(aliases.c.name == models.c.name, aliases.c.version == models.c.version, aliases.c.alias == bindparam("alias"))
_DEFAULT = _ready.join(defaults, _default)
_VERSION = _ready.where(models.c.name == bindparam("name"), models.c.version == bindparam("version"))
_ALIASED = _ready.join(aliases, _alias).where(models.c.name == bindparam("name"))
_NAMED = (
    _ready.outerjoin(aliases, _alias).where(models.c.name == bindparam("name")).order_by(aliases.c.alias.is_(None), models.c.version.desc())
)


def _columns() -> Any:
    return select(models.c.manifest, models.c.state, models.c.id, models.c.job_id, models.c.exported_key)


def _model(row: Row[Any]) -> Model:
    return Model(Manifest.model_validate(row.manifest), row.state, row.id, row.job_id, row.exported_key)


def _named(model_id: str, state: str, exported_key: str | None) -> set[str] | None:
    if state == "preparing":
        return None
    return {key for key in (blob_key(model_id, WEIGHTS), exported_key) if key} if state == "ready" else set()
