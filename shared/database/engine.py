"""Opening the database, once for each program, and its clock. SQLite for one machine, PostgreSQL for several."""

from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

CACHE_KB = 512  # of SQLite, for each connection: every other one's write empties it, so more is only memory that is never given back
BUSY_MS = 5000  # how long a statement waits for locks, and a request for a connection
LONGEST_MS = 60_000  # of a statement on PostgreSQL: a plan gone wrong must not hold its locks for ever
LACUNA = 0x1AC04A  # the number of our advisory lock
# execution options of a transaction that only reads: on SQLite it does not wait for writers, on PostgreSQL it cannot write
READ_ONLY = {"read_only": True, "postgresql_readonly": True}
ONE_SELECT = READ_ONLY | {"one_select": True}  # on SQLite a single SELECT needs no transaction around it
AWAY = (OperationalError, InterfaceError, PoolTimeoutError)  # the database did not answer; any other error is an answer


class now_ms(FunctionElement[int]):  # noqa: N801  # reads like the SQL functions it stands beside
    """Milliseconds since 1970 on the database's clock, the only clock that decides anything: when this statement began.

    One value for a whole statement, so that an index can be searched with it.
    """

    type = BigInteger()
    inherit_cache = True


class clock_ms(FunctionElement[int]):  # noqa: N801
    """As `now_ms`, but the moment itself: a lease begins when it is written, not when its statement began to wait for a lock."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
@compiles(clock_ms, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # not unixepoch('now','subsec'): it is NULL on SQLite 3.40
    return "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"


@compiles(now_ms, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)"


@compiles(clock_ms, "postgresql")
def _clock_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


def open_database(url: str) -> Engine:
    """An engine for `url`, set up so that several threads and processes can write."""
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(url, pool_size=16, max_overflow=16, connect_args={"timeout": BUSY_MS / 1000})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",  # whatever the server's default is: every move is one statement and its conditions
        pool_size=8,
        max_overflow=8,  # a server allows a hundred connections by default, and each of our processes has a pool
        pool_timeout=BUSY_MS / 1000,
        pool_pre_ping=True,  # a server that was restarted has closed what lies in the pool
        connect_args={"connect_timeout": round(BUSY_MS / 1000), "application_name": "lacuna", **_KEEPALIVE},
    )
    event.listen(engine, "connect", _set_up_postgresql)
    return engine


# a server whose machine is gone answers nothing: the connection ends after about 25 seconds, which is less than a lease
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}


def upsert(engine: Engine, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what is done about a row that is there already."""
    return sqlite.insert(table) if engine.dialect.name == "sqlite" else postgresql.insert(table)


def be_alone(connection: Connection) -> None:
    """Until the transaction ends, whoever else calls this waits. On SQLite a writer is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(LACUNA)))


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, below
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "fullfsync=ON",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_MS}",
        f"cache_size=-{CACHE_KB}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # a write that begins as a read fails with "database is locked" as soon as another wrote in between
    options = connection.get_execution_options()
    if not options.get("one_select", False):
        connection.exec_driver_sql("BEGIN" if options.get("read_only", False) else "BEGIN IMMEDIATE")


def _set_up_postgresql(connection: Any, _record: Any) -> None:
    # one round trip; not as connection options, which poolers between us and the server refuse
    connection.execute(
        f"SET lock_timeout = {BUSY_MS}; SET statement_timeout = {LONGEST_MS}; "
        f"SET idle_in_transaction_session_timeout = {LONGEST_MS}; SET TIME ZONE 'UTC'"
    )
    connection.commit()
