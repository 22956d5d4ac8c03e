"""Bringing the database to this version, with a copy of the old one beside it, and registering the shipped models."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

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
    said = []
    now, newest = migration.revisions(database)
    if now is not None and not migration.is_known(now):
        raise NewerDatabase(f"{settings.database} is of a newer Lacuna (revision {now}). Install that version, or name another home.")
    if now is not None and now != newest:
        said.append(f"Copied the database to {_back_up(settings, now)}.")
    if now != newest:
        migration.migrate(database)
        said.append("The database is up to date.")
    shipped = registry.shipped()
    Models(database).register(shipped)
    said.append(f"Models: {', '.join(found.reference for found in shipped) or 'none are shipped'}.")
    database.dispose()
    return said


def _back_up(settings: Settings, revision: str) -> Path:
    path = Path(make_url(settings.database).database or "")
    target = path.with_name(f"{path.name}.before-{revision}")
    with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return target
