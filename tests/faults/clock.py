"""The clocks of a service under test, and stepping them while everything runs.

`rewire` lets a program see them (the wiring `clocked`): `time.time` in each process, and the database's clock. The steady clock
stays as it is, as it does when a real clock is stepped, and on Linux also while a machine is suspended.
"""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.ext.compiler import compiles

from shared.blobs import local
from shared.database import engine as database

WALL, DATABASE = "clock.wall", "clock.database"  # files of the home: by how many milliseconds each is stepped
TABLE = "fault_clock"  # the same for PostgreSQL's, whose clock is the server's and not that of whoever asks


def wind(home: Path, engine: Engine) -> None:
    """Set the clocks right, before any program starts."""
    for name in (WALL, DATABASE):
        _write(home, name, 0)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {TABLE} AS SELECT CAST(0 AS BIGINT) AS ms"))


def step(home: Path, engine: Engine, seconds: float) -> None:
    """All clocks at once, as near as that can be."""
    step_database(home, engine, seconds)
    _write(home, WALL, _read(home, WALL) + round(seconds * 1000))


def step_database(home: Path, engine: Engine, seconds: float) -> None:
    """The database's alone."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {TABLE} SET ms = ms + :ms"), {"ms": round(seconds * 1000)})  # noqa: S608  # our own name
    else:
        _write(home, DATABASE, _read(home, DATABASE) + round(seconds * 1000))


def rewire(home: Path) -> None:
    """Let this process see the clocks of that home."""
    system = time.time
    setattr(local, "time", SimpleNamespace(time=system))  # noqa: B010  # the stamps of files are the system's
    time.time = lambda: system() + _read(home, WALL) / 1000
    time.time_ns = lambda: round(time.time() * 1e9)

    set_up = database._set_up_sqlite

    def set_up_clocked(connection: Any, record: Any) -> None:
        connection.create_function(TABLE, 0, lambda: _read(home, DATABASE))
        set_up(connection, record)

    setattr(database, "_set_up_sqlite", set_up_clocked)  # noqa: B010  # mypy lets nobody assign a function of a module
    for function, dialect, offset in (
        (database.now_ms, "sqlite", f"{TABLE}()"),
        (database.clock_ms, "sqlite", f"{TABLE}()"),
        (database.now_ms, "postgresql", f"(SELECT ms FROM {TABLE})"),  # noqa: S608  # our own name
        (database.clock_ms, "postgresql", f"(SELECT ms FROM {TABLE})"),  # noqa: S608
    ):
        _shift(function, dialect, offset)


def _shift(function: Any, dialect: str, offset: str) -> None:
    """Let a function of the database's clock say so much more."""
    right = function._compiler_dispatcher.specs[dialect]

    @compiles(function, dialect)
    def shifted(element: Any, compiler: Any, **options: Any) -> str:
        return f"({right(element, compiler, **options)} + {offset})"


def _read(home: Path, name: str) -> int:
    return int((home / name).read_text(encoding="ascii"))


def _write(home: Path, name: str, milliseconds: int) -> None:
    new = (home / name).with_suffix(".new")
    new.write_text(str(milliseconds), encoding="ascii")
    new.rename(home / name)
