"""The databases that tests run on: a SQLite file, and PostgreSQL, one server for a whole run."""

import atexit
import functools
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, event, make_url

from shared.database.engine import open_database
from shared.database.tables import metadata

ROOT = Path(__file__).parents[1]
KINDS = ("sqlite", "postgresql")
END_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

_numbers = itertools.count()


@contextmanager
def empty(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a database with nothing in it. SQLite's is `folder`/lacuna.db."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'lacuna.db'}"
        return
    name = f"empty{next(_numbers)}"
    _administrator().execute(f"CREATE DATABASE {name}")
    try:
        yield _url(name)
    finally:
        _administrator().execute(f"DROP DATABASE {name} WITH (FORCE)")


class Prepared:
    """Databases with tables and rows in them. Each is as new for each test, which takes milliseconds; making one takes long."""

    def __init__(self, prepare: Callable[[Engine], Any]) -> None:
        self._prepare = prepare
        self._free: list[str] = []  # PostgreSQL's, by name

    @contextmanager
    def taken(self, kind: str, folder: Path) -> Iterator[str]:
        """The URL of one that nobody else uses. SQLite's is `folder`/lacuna.db."""
        if kind == "sqlite":
            (folder / "lacuna.db").write_bytes(self._sqlite)
            yield f"sqlite:///{folder / 'lacuna.db'}"
            return
        name = self._free.pop() if self._free else self._make()
        try:
            yield _url(name)
        finally:
            with psycopg.connect(start_server(), dbname=name, autocommit=True) as connection:
                connection.execute(f"{END_OTHERS}; {self._refill}")
            self._free.append(name)

    @functools.cached_property
    def _sqlite(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            self._fill(f"sqlite:///{folder}/lacuna.db")
            return Path(folder, "lacuna.db").read_bytes()

    def _make(self) -> str:
        name = f"prepared{next(_numbers)}"
        _administrator().execute(f"CREATE DATABASE {name}")
        self._fill(_url(name))
        with psycopg.connect(start_server(), dbname=name, autocommit=True) as connection:
            kept = [f"CREATE TABLE kept.{table.name} AS TABLE public.{table.name}" for table in metadata.sorted_tables]
            connection.execute("; ".join(["CREATE SCHEMA kept", *kept]))
        return name

    @property
    def _refill(self) -> str:
        names = [table.name for table in metadata.sorted_tables]
        emptied = [f"DELETE FROM public.{name}" for name in reversed(names)]  # noqa: S608  # our own names
        return "; ".join([*emptied, *(f"INSERT INTO public.{name} SELECT * FROM kept.{name}" for name in names)])  # noqa: S608

    def _fill(self, url: str) -> None:
        engine = open_database(url)
        self._prepare(engine)
        engine.dispose()


def hurried(engine: Engine) -> Engine:
    """The engine, without syncing: no test cuts the power, and it takes half of their time. Our PostgreSQL never syncs."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF").close())
    return engine


@contextmanager
def crashed() -> Iterator[None]:
    """PostgreSQL has crashed, for all who use this server; at the end it is started again."""
    _administrator().close()
    _administrator.cache_clear()
    _tell("crash")
    try:
        yield
    finally:
        _tell("start")


@functools.cache
def start_server() -> str:
    """Start PostgreSQL on a socket, until Python ends; the URL of its first database."""
    return _answer()


@functools.cache
def _server() -> "subprocess.Popen[str]":
    argv = [sys.executable, "-W", "ignore", "-m", "tests.postgresql"]
    server = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)  # closes its standard input, and waits
    return server


def _tell(what: str) -> None:
    server = _server()
    assert server.stdin is not None
    server.stdin.write(f"{what}\n")
    server.stdin.flush()
    assert _answer() == "done"


def _answer() -> str:
    server = _server()
    assert server.stdout is not None
    answer = server.stdout.readline().strip()
    assert answer, "PostgreSQL did not start; what it says stands above."
    return answer


@functools.cache
def _administrator() -> psycopg.Connection[Any]:
    """A connection that makes databases."""
    connection = psycopg.connect(start_server(), autocommit=True)
    atexit.register(connection.close)
    for setting in ("fsync = off", "full_page_writes = off", "synchronous_commit = off"):
        connection.execute(f"ALTER SYSTEM SET {setting}")
    connection.execute("SELECT pg_reload_conf()")
    return connection


def _url(name: str) -> str:
    return make_url(start_server()).set(drivername="postgresql+psycopg", database=name).render_as_string(hide_password=False)
