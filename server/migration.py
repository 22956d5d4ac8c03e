"""Bringing the database to this version, with a copy of the old one beside it, and registering the shipped models."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine

from shared.database import migration
from shared.database.engine import open_database
from shared.models import registry
from shared.models.store import Models
from shared.settings import Settings


class NewerDatabase(Exception):
    """A sentence on what to do."""


def migrate(settings: Settings) -> list[str]:
    """Migrate and register; a sentence for each thing done. Raises `NewerDatabase`, having changed nothing."""
    settings.home.mkdir(parents=True, exist_ok=True)
    database = open_database(settings.database)
    try:
        return _migrate(database)
    finally:
        database.dispose()


def _migrate(database: Engine) -> list[str]:
    said = []
    now, newest = migration.revisions(database)
    if now is not None and not migration.is_known(now):
        raise NewerDatabase(f"{database.url} is of a newer Lacuna (revision {now}). Install that version, or name another home.")
    if now is not None and now != newest:
        said.append(_back_up(database, now))
    if now != newest:
        migration.migrate(database)
        said.append("The database is up to date.")
    shipped = registry.shipped()
    Models(database).register(shipped)
    said.append(f"Models: {', '.join(found.reference for found in shipped) or 'none are shipped'}.")
    return said


def _back_up(database: Engine, revision: str) -> str:
    if database.dialect.name != "sqlite":
        return "No copy was made: on PostgreSQL a migration happens whole or not at all, and pg_dump makes copies."
    path = Path(database.url.database or "")
    target = path.with_name(f"{path.name}.before-{revision}")
    with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return f"Copied the database to {target}."
