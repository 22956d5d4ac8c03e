"""Opening the database, once for each program, and its clock."""

from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, create_engine, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

BUSY_MS = 5000
READ_ONLY = {"read_only": True}  # execution option of a transaction that only reads: it does not wait for writers


class now_ms(FunctionElement[int]):  # noqa: N801  # reads like the SQL functions it stands beside
    """Milliseconds since 1970 on the database's clock, the only clock that decides anything."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # not unixepoch('now','subsec'): it is NULL on SQLite 3.40
    return "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"


@compiles(now_ms, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


def open_database(url: str) -> Engine:
    """An engine for `url`, set up so that several threads and processes can write."""
    engine = create_engine(url, pool_size=16, max_overflow=16, connect_args={"timeout": BUSY_MS / 1000})
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, below
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "fullfsync=ON", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    # a write that begins as a read fails with "database is locked" as soon as another wrote in between
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
