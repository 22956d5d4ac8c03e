"""`lacunad doctor`: what is there, what is missing, and what to do about it."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from shared import children
from shared.bells import reach
from shared.database import migration
from shared.database.engine import open_database
from shared.errors import LacunaError
from shared.models import registry
from shared.models.manifest import Manifest
from shared.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `advice` is empty where all is well."""

    name: str
    what: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything worth looking at, in the order in which it matters."""
    yield Finding("machine", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    yield _home(settings)
    yield _database(settings)
    yield _redis(settings)
    yield _models()
    yield _executor(settings)


def _home(settings: Settings) -> Finding:
    existing = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    what = f"{settings.home}, {free / 1e9:.1f} GB free"
    if not os.access(existing, os.W_OK):
        return Finding("home", what, "It cannot be written: set LACUNA_HOME to a folder of yours.")
    if free < settings.min_free:
        return Finding("home", what, "Below LACUNA_MIN_FREE uploads are refused and bulk pauses: free some space.")
    return Finding("home", what)


def _database(settings: Settings) -> Finding:
    if not settings.database_url and not (settings.home / "lacuna.db").exists():
        return Finding("database", "none yet", "`lacunad up` or `lacunad migrate` makes it.")
    database = open_database(settings.database)
    try:
        now, newest = migration.revisions(database)
    except SQLAlchemyError as error:
        return Finding("database", type(error).__name__, "Check LACUNA_DATABASE_URL, and the folder's permissions or that the server runs.")
    finally:
        database.dispose()
    what = f"{database.url}, revision {now}"
    return Finding("database", what) if now == newest else Finding("database", what, "Run `lacunad migrate`.")


def _redis(settings: Settings) -> Finding:
    if reach.state(settings.redis) == "ok":
        return Finding("redis", "answers")
    advice = (
        "Work goes on without it, a little later: check LACUNA_REDIS_URL."
        if settings.redis_url
        else "`lacunad up` starts the embedded one."
    )
    return Finding("redis", "does not answer", advice)


def _models() -> Finding:
    try:
        found = [f"{shipped.reference} ({_size(shipped)})" for shipped in registry.shipped()]
    except LacunaError as error:
        return Finding("models", error.kind.title, error.detail)
    return Finding("models", ", ".join(found)) if found else Finding("models", "none", "Install Lacuna again: its models are missing.")


def _size(model: Manifest) -> str:
    return f"{model.parameters / 1e6:.2f} M parameters" if model.parameters else "no network"


def _executor(settings: Settings) -> Finding:
    """As a worker would choose it: asked of the trainer, in a process of its own."""
    argv = children.python("trainer", "executor", "--setting", settings.executor)
    asked = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    if asked.returncode:
        said = asked.stderr.strip().splitlines() or [f"It ended with status {asked.returncode} and said nothing: install Lacuna again."]
        return Finding("executor", "none", said[-1])
    said = json.loads(asked.stdout)
    return Finding("executor", f"{said['executor']}, {said['precision']}, {said['device']} (LACUNA_EXECUTOR={settings.executor})")
