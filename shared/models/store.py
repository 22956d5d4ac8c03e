"""Which models there are: registration, names and what they resolve to.

Aliases and defaults belong to an owner; those of nobody come with Lacuna and hold for owners who have none of their own.
Whoever changes them, or deletes a version, is alone while they do, so that no name is left that leads nowhere.
"""

import builtins
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from shared import events
from shared.database.engine import ONE_SELECT, be_alone, now_ms
from shared.database.tables import aliases, defaults, jobs, models, rates, retired
from shared.errors import Fault, Refused
from shared.jobs.job import FINAL, Kind, State, blob_key
from shared.models.manifest import Manifest

WEIGHTS = "weights"  # the part of a model's blobs that holds them
NAMED_JOBS = 3  # that a refusal lists

May = Callable[[int | None], bool]  # whether an alias may be changed that names this version now; None: there is none


@dataclass(frozen=True)
class Model:
    """A version as it is registered. Without an `id` its files come with Lacuna; else they are blobs."""

    manifest: Manifest
    state: str  # preparing, ready or failed
    id: str | None
    job_id: str | None  # of the job that makes it ready
    exported_key: str | None  # the blob of its exported network
    trained_key: str | None = None  # the blob of its weights, where it was trained here

    @property
    def reference(self) -> str:
        """The name users write: `denoise@1`."""
        return self.manifest.reference

    @property
    def weights_key(self) -> str:
        """The blob of its weights. Only of models with an id."""
        if self.id is None:
            raise ValueError(f"the weights of {self.manifest.reference} are no blob")
        return self.trained_key or blob_key(self.id, WEIGHTS)


@dataclass(frozen=True)
class Chosen:
    """A ready version that a job is to use."""

    name: str
    version: int
    id: str | None  # None: it comes with Lacuna, and stays

    @property
    def reference(self) -> str:
        """The name users write: `denoise@1`."""
        return f"{self.name}@{self.version}"


class Models:
    """The registry. A published version never changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._looker = engine.execution_options(**ONE_SELECT)

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
                ours = select(defaults.c.name).where(defaults.c.task == task, defaults.c.owner_id.is_(None))
                if connection.execute(ours).one_or_none() is None:
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
            gone = select(retired.c.name).where(retired.c.name == described.name, retired.c.version == described.version)
            if connection.execute(gone).first() is not None:
                raise Refused("model_exists", f"There was another {described.reference}, which was deleted: give this one another number.")
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

    def trained(self, job_id: str, described: Manifest, weights_key: str) -> Callable[[Connection], None]:
        """What makes a model in preparation what its training made of it, for `Success.alongside`."""
        values = {"manifest": described.model_dump(by_alias=True), "weights_key": weights_key}

        def keep(connection: Connection) -> None:
            connection.execute(update(models).where(models.c.job_id == job_id, models.c.state == "preparing").values(**values))

        return keep

    def next_version(self, name: str) -> int:
        """The number that a new version of that name gets: the next that nobody has or had."""
        with self._reading() as connection:
            used = [
                connection.execute(select(func.max(table.c.version)).where(table.c.name == name)).scalar() for table in (models, retired)
            ]
        return max(version or 0 for version in used) + 1

    def delete(self, owner_id: str, name: str, version: int) -> Model:
        """Remove the row of a version of that owner's, and what is measured of it; the model that it was. Its number is not used again.

        Raises `Refused("model_not_found")`, or `Refused("in_use")` while an alias, a default or a job that has not ended names it.
        """
        with self._engine.begin() as connection:
            be_alone(connection)
            found = connection.execute(_version(name, version), {"owner": owner_id}).one_or_none()
            if found is None:
                raise Refused("model_not_found")
            model = _model(found)
            if model.id is None:
                raise Refused("in_use", f"{model.reference} comes with Lacuna and stays. Another can be the default in its place.")
            same = models.c.name == name, models.c.version == version
            connection.execute(select(models.c.name).where(*same).with_for_update())  # waits for jobs that are being accepted
            if uses := _uses(connection, owner_id, model.manifest):
                raise Refused("in_use", f"First move, remove or wait for what names {model.reference}: {', '.join(uses)}.")
            connection.execute(delete(models).where(*same))
            connection.execute(delete(rates).where(rates.c.model_name == name, rates.c.model_version == version))
            if model.state == "ready":
                connection.execute(insert(retired).values(name=name, version=version))
        events.emit("model.deleted", model=model.reference)
        return model

    def get(self, name: str, version: int) -> Model | None:
        """That version, in whatever state."""
        return self._found(_one(name, version), {})

    def seen(self, name: str, version: int, owner_id: str) -> Model | None:
        """The same, if that owner sees it."""
        return self._found(_version(name, version), {"owner": owner_id})

    def list(self, owner_id: str | None = None, name: str | None = None) -> builtins.list[Model]:
        """Every version, by name and version; those that an owner sees, if one is named: their own and the shipped ones."""
        statement = _columns() if owner_id is None else _columns().where(_seen)
        statement = statement if name is None else statement.where(models.c.name == name)
        with self._reading() as connection:
            rows = connection.execute(statement.order_by(models.c.name, models.c.version), {} if owner_id is None else {"owner": owner_id})
            return [_model(row) for row in rows]

    def held(self, name: str, version: int, owner_id: str) -> Callable[[Connection], None]:
        """What keeps a version until a job that names it is there, for `Jobs.accept` to do alongside.

        It raises `Refused("unknown_model")` if the version is not ready, or was deleted meanwhile.
        """

        def hold(connection: Connection) -> None:
            ready = _version(name, version).where(models.c.state == "ready").with_for_update(read=True, key_share=True)
            if connection.execute(ready, {"owner": owner_id}).first() is None:
                raise Refused("unknown_model", f"{name}@{version} was deleted, or is not ready. Send it again with another model.")

        return hold

    def kept_parts(self, ids: Iterable[str]) -> dict[str, set[str] | None]:
        """Of each model that exists, the blob keys that its row names; None means all of them: it is being prepared."""
        columns = [models.c[name] for name in ("id", "state", "exported_key", "weights_key")]
        with self._reading() as connection:
            rows = connection.execute(select(*columns).where(models.c.id.in_(builtins.list(ids))))
            return {row.id: _parts(row.id, row.state, row.exported_key, row.weights_key) for row in rows}

    def defaults(self, owner_id: str) -> dict[str, str]:
        """Task → the version used where that owner names no model: `{"denoise": "denoise@1"}`."""
        with self._reading() as connection:
            rows = connection.execute(select(defaults).where(_holds(defaults, owner_id)).order_by(*_own_last(defaults)))
            return {row.task: f"{row.name}@{row.version}" for row in rows}

    def aliases(self, owner_id: str) -> dict[str, builtins.list[str]]:
        """Version → the aliases that it has for that owner: `{"denoise@1": ["prod"]}`."""
        with self._reading() as connection:
            rows = connection.execute(select(aliases).where(_holds(aliases, owner_id)).order_by(*_own_last(aliases)))
            meant = {(row.name, row.alias): row.version for row in rows}
        found = defaultdict(builtins.list)
        for (name, alias), version in sorted(meant.items()):
            found[f"{name}@{version}"].append(alias)
        return dict(found)

    def set_alias(self, owner_id: str, name: str, alias: str, version: int, may: May) -> Model:
        """Make `name@alias` mean that version for that owner.

        Raises `Refused` model_not_found, unknown_model for a version that is not there or not ready, precondition_failed.
        """
        with self._engine.begin() as connection:
            be_alone(connection)
            rows = connection.execute(_columns().where(_seen, models.c.name == name).order_by(models.c.version), {"owner": owner_id})
            versions = {found.manifest.version: found for found in map(_model, rows)}
            if not versions:
                raise Refused("model_not_found")
            if (model := versions.get(version)) is None or model.state != "ready":
                is_so = f"There is no {name}@{version}" if model is None else f"{model.reference} is {model.state}"
                ready = ", ".join(found.reference for found in versions.values() if found.state == "ready")
                raise Refused("unknown_model", f"{is_so}; ready are: {ready or 'none'}.", fields={"version": "not ready"})
            _require(may, _meant(connection, owner_id, name, alias), name, alias)
            values = {"version": version, "changed_at": now_ms()}
            same = aliases.c.owner_id == owner_id, aliases.c.name == name, aliases.c.alias == alias
            if not connection.execute(update(aliases).where(*same).values(**values)).rowcount:
                connection.execute(insert(aliases).values(owner_id=owner_id, name=name, alias=alias, **values))
        return model

    def remove_alias(self, owner_id: str, name: str, alias: str, may: May) -> None:
        """Take an alias of that owner's away. Raises `Refused` model_not_found where there is none, precondition_failed."""
        with self._engine.begin() as connection:
            be_alone(connection)
            _require(may, _meant(connection, owner_id, name, alias), name, alias)
            same = aliases.c.owner_id == owner_id, aliases.c.name == name, aliases.c.alias == alias
            if not connection.execute(delete(aliases).where(*same)).rowcount:
                raise Refused("model_not_found", f"You have no alias {name}@{alias}. GET /v1/models lists what there is.")

    def set_default(self, owner_id: str, task: str, wanted: str) -> Model:
        """Make `name@version` what that owner's jobs of a task use where they name no model. Raises as `resolve` does."""
        chosen = self.resolve(task, wanted, owner_id)
        with self._engine.begin() as connection:
            be_alone(connection)
            self.held(chosen.name, chosen.version, owner_id)(connection)  # it may have been deleted since it was found
            same = defaults.c.owner_id == owner_id, defaults.c.task == task
            if not connection.execute(update(defaults).where(*same).values(name=chosen.name, version=chosen.version)).rowcount:
                connection.execute(insert(defaults).values(owner_id=owner_id, task=task, name=chosen.name, version=chosen.version))
            return _model(connection.execute(_version(chosen.name, chosen.version), {"owner": owner_id}).one())

    def remove_default(self, owner_id: str, task: str) -> None:
        """Go back to the default that comes with Lacuna, from whatever that owner chose."""
        with self._engine.begin() as connection:
            be_alone(connection)
            connection.execute(delete(defaults).where(defaults.c.owner_id == owner_id, defaults.c.task == task))

    def resolve(self, task: str, wanted: str | None, owner_id: str) -> Chosen:
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
        with self._reading() as connection:
            row = connection.execute(statement, {"task": task, "owner": owner_id, **values}).first()
        if row is None:
            ready = [found.manifest for found in self.list(owner_id) if found.state == "ready"]
            known = ", ".join(found.reference for found in ready if found.task == task)
            if other := next((found for found in ready if found.name == name and found.task != task), None):
                does = f"{other.name} does {other.task}, not {task}; there are: {known or 'none'}."
                raise Refused("model_task", does, fields={"model": f"for {other.task}"})
            what = f"“{wanted[:140]}”" if wanted else "a default model"
            raise Refused("unknown_model", f"There is no {what} for {task}; there are: {known or 'none'}.", fields={"model": "unknown"})
        return Chosen(*row)

    def _found(self, statement: Any, values: dict[str, str]) -> Model | None:
        with self._reading() as connection:
            row = connection.execute(statement, values).one_or_none()
        return _model(row) if row is not None else None

    def _reading(self) -> Any:
        return self._looker.connect()


def _columns() -> Any:
    return select(*(models.c[name] for name in ("manifest", "state", "id", "job_id", "exported_key", "weights_key")))


# made once: every picture that is sent asks for a model
_seen = or_(models.c.owner_id.is_(None), models.c.owner_id == bindparam("owner"))  # what comes with Lacuna belongs to nobody
_chosen = select(models.c.name, models.c.version, models.c.id)
_ready = _chosen.where(models.c.state == "ready", models.c.task == bindparam("task"), _seen).limit(1)
_of_owner = {table: or_(table.c.owner_id.is_(None), table.c.owner_id == bindparam("owner")) for table in (aliases, defaults)}
_task = defaults.c.task == bindparam("task")
_default = and_(models.c.name == defaults.c.name, models.c.version == defaults.c.version, _task, _of_owner[defaults])
_named = aliases.c.alias == bindparam("alias")
_alias = and_(aliases.c.name == models.c.name, aliases.c.version == models.c.version, _named, _of_owner[aliases])
_DEFAULT = _ready.join(defaults, _default).order_by(defaults.c.owner_id.is_(None))
_VERSION = _ready.where(models.c.name == bindparam("name"), models.c.version == bindparam("version"))
_ALIASED = _ready.join(aliases, _alias).where(models.c.name == bindparam("name")).order_by(aliases.c.owner_id.is_(None))
_NAMED = (
    _ready.outerjoin(aliases, _alias)
    .where(models.c.name == bindparam("name"))
    .order_by(aliases.c.alias.is_(None), aliases.c.owner_id.is_(None), models.c.version.desc())
)


def _one(name: str, version: int) -> Any:
    return _columns().where(models.c.name == name, models.c.version == version)


def _version(name: str, version: int) -> Any:
    """Of those that the parameter `owner` sees."""
    return _one(name, version).where(_seen)


def _holds(table: Table, owner_id: str) -> ColumnElement[bool]:
    """The rows that hold for an owner: their own, and nobody's where they have none of their own."""
    return or_(table.c.owner_id.is_(None), table.c.owner_id == owner_id)


def _own_last(table: Table) -> builtins.list[ColumnElement[Any]]:
    """An order in which an owner's rows come behind nobody's: who makes a dictionary of them keeps the owner's."""
    return [table.c.owner_id.is_not(None)]


def _meant(connection: Connection, owner_id: str, name: str, alias: str) -> int | None:
    """The version that an alias names for an owner."""
    named = select(aliases.c.version).where(aliases.c.name == name, aliases.c.alias == alias, _holds(aliases, owner_id))
    return connection.execute(named.order_by(aliases.c.owner_id.is_(None)).limit(1)).scalar_one_or_none()


def _require(may: May, version: int | None, name: str, alias: str) -> None:
    if not may(version):
        now = "does not exist" if version is None else f"names version {version}"
        raise Refused("precondition_failed", f"{name}@{alias} {now}. Decide again with that in mind.")


def _uses(connection: Connection, owner_id: str, found: Manifest) -> builtins.list[str]:
    """What names a version of an owner's, in words. Nobody else can name it."""
    named = select(aliases.c.alias).where(aliases.c.name == found.name, aliases.c.version == found.version)
    chosen = select(defaults.c.task).where(defaults.c.name == found.name, defaults.c.version == found.version)
    waiting = select(jobs.c.id).where(
        jobs.c.owner_id == owner_id, jobs.c.state.in_(sorted(set(State) - FINAL)),
        jobs.c.model_name == found.name, jobs.c.model_version == found.version,
    ).order_by(jobs.c.id).limit(NAMED_JOBS + 1)  # fmt: skip
    ids = builtins.list(connection.execute(waiting).scalars())
    learning = select(jobs.c.id, jobs.c.input).where(
        jobs.c.owner_id == owner_id, jobs.c.state.in_(sorted(set(State) - FINAL)), jobs.c.kind.in_([Kind.TRAIN, Kind.EVALUATE])
    )  # fmt: skip
    for row in connection.execute(learning.order_by(jobs.c.id)):
        if row.id not in ids and found.reference in (row.input.get("base"), *row.input.get("models", [])):
            ids.append(row.id)
    return [
        *(f"the alias {alias}" for alias in sorted(connection.execute(named).scalars())),
        *(f"the default of {task}" for task in connection.execute(chosen).scalars()),
        *(f"the job {job_id}" for job_id in ids[:NAMED_JOBS]),
        *(["other jobs"] if len(ids) > NAMED_JOBS else []),
    ]


def _model(row: Row[Any]) -> Model:
    return Model(Manifest.model_validate(row.manifest), row.state, row.id, row.job_id, row.exported_key, row.weights_key)


def _parts(model_id: str, state: str, exported_key: str | None, weights_key: str | None) -> set[str] | None:
    if state == "preparing":
        return None
    return {weights_key or blob_key(model_id, WEIGHTS), *filter(None, [exported_key])} if state == "ready" else set()
