"""Which models there are: registration, names and what they resolve to."""

import builtins
import re

from sqlalchemy import Engine, insert, select

from shared.database.engine import READ_ONLY, now_ms
from shared.database.tables import aliases, defaults, models
from shared.errors import Fault, Refused
from shared.models.manifest import Manifest


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
            for found in manifests:
                row = connection.execute(
                    select(models.c.manifest).where(models.c.name == found.name, models.c.version == found.version)
                ).one_or_none()
                if row is None:
                    values = {"name": found.name, "version": found.version, "task": found.task, "manifest": found.model_dump(by_alias=True)}
                    connection.execute(insert(models).values(**values, state="ready", created_at=now_ms()))
                elif row.manifest["weights_sha256"] != found.weights_sha256:
                    raise Fault("artifact_invalid", f"{found.reference} is registered with other weights; a version never changes.")
                so_far = newest.setdefault(found.task, found)
                if found.name == so_far.name and found.version > so_far.version:
                    newest[found.task] = found
            for task, found in newest.items():
                if connection.execute(select(defaults.c.name).where(defaults.c.task == task)).one_or_none() is None:
                    connection.execute(insert(defaults).values(task=task, name=found.name, version=found.version))

    def list(self) -> builtins.list[Manifest]:
        """Every ready version, by name and version."""
        statement = select(models.c.manifest).where(models.c.state == "ready").order_by(models.c.name, models.c.version)
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return [Manifest.model_validate(row.manifest) for row in connection.execute(statement)]

    def defaults(self) -> dict[str, str]:
        """Task → the version used where no model is named: `{"denoise": "denoise@1"}`."""
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return {row.task: f"{row.name}@{row.version}" for row in connection.execute(select(defaults))}

    def aliases(self, found: Manifest) -> builtins.list[str]:
        """The aliases of a version."""
        statement = select(aliases.c.alias).where(aliases.c.name == found.name, aliases.c.version == found.version)
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return sorted(connection.execute(statement).scalars())

    def resolve(self, task: str, wanted: str | None) -> Manifest:
        """The version that `wanted` names: none = the task's default; `name`, `name@alias`, `name@version`.

        A bare name is its alias `prod` if that is set, else its newest ready version. Raises `Refused("unknown_model")`.
        """
        name, _, version = (wanted or "").partition("@")
        of_task = select(models.c.manifest).where(models.c.state == "ready", models.c.task == task)
        if not wanted:
            default = (models.c.name == defaults.c.name) & (models.c.version == defaults.c.version)
            statement = of_task.join(defaults, default).where(defaults.c.task == task)
        elif re.fullmatch("[0-9]{1,9}", version):  # not isdigit(): `²` is a digit, and no number; longer ones overflow the column
            statement = of_task.where(models.c.name == name, models.c.version == int(version))
        else:
            aliased = (aliases.c.name == models.c.name) & (aliases.c.version == models.c.version) & (aliases.c.alias == (version or "prod"))
            statement = (
                of_task.outerjoin(aliases, aliased)
                .where(models.c.name == name)
                .order_by(aliases.c.alias.is_(None), models.c.version.desc())
            )
            statement = statement.where(aliases.c.alias.is_not(None)) if version else statement
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            row = connection.execute(statement.limit(1)).first()
        if row is None:
            known = ", ".join(found.reference for found in self.list() if found.task == task)
            what = f"“{wanted}”" if wanted else "a default model"
            raise Refused("unknown_model", f"There is no {what} for {task}; there are: {known or 'none'}.", fields={"model": "unknown"})
        return Manifest.model_validate(row.manifest)
