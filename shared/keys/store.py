"""The keys there are. A key is shown once, when it is made; what is stored is its hash."""

import hashlib
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, exists, insert, select, update
from uuid_utils import uuid7

from shared.database.engine import READ_ONLY, be_alone, now_ms, upsert
from shared.database.tables import keys, owners

LOCAL = "local"  # the owner of all that was made without a key
OWNER = re.compile(r"[a-z0-9][a-z0-9-]{0,35}")
PREFIX = "lacuna_"  # by which scanners for leaked secrets can know one
BYTES = 32


@dataclass(frozen=True)
class Key:
    """A key as it is stored; times are milliseconds since 1970."""

    id: str
    owner_id: str
    label: str | None
    created_at: int
    revoked_at: int | None


class Keys:
    """The tables `keys` and `owners`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def make(self, owner_id: str = LOCAL, label: str | None = None) -> str:
        """A new key of that owner, who may be new. Only its hash is kept: nobody can show it again."""
        with self._engine.begin() as connection:
            return _make(connection, self._engine, owner_id, label)

    def first(self) -> str | None:
        """A key, if there was never one; None if there was, also if it is revoked."""
        with self._engine.begin() as connection:
            be_alone(connection)
            if connection.execute(select(exists().select_from(keys))).scalar_one():
                return None
            return _make(connection, self._engine, LOCAL, "first")

    def owner_of(self, key: str) -> str | None:
        """Whose key it is; None if it is nobody's, or revoked."""
        found = select(keys.c.owner_id).where(keys.c.sha256 == _hash(key), keys.c.revoked_at.is_(None))
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return connection.execute(found).scalar_one_or_none()

    def list(self) -> list[Key]:
        """Every key that was ever made, oldest first."""
        columns = select(keys.c.id, keys.c.owner_id, keys.c.label, keys.c.created_at, keys.c.revoked_at)
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return [Key(**row._mapping) for row in connection.execute(columns.order_by(keys.c.created_at, keys.c.id))]

    def revoke(self, key_id: str) -> bool:
        """From now on it opens nothing. False if there is no such key, or it was revoked before."""
        statement = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=now_ms())
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1


def _make(connection: Connection, engine: Engine, owner_id: str, label: str | None) -> str:
    key = PREFIX + secrets.token_urlsafe(BYTES)
    connection.execute(upsert(engine, owners).values(id=owner_id, created_at=now_ms()).on_conflict_do_nothing())
    connection.execute(insert(keys).values(id=str(uuid7()), owner_id=owner_id, sha256=_hash(key), label=label, created_at=now_ms()))
    return key


def _hash(key: str) -> str:
    """SHA-256 without salt: there is nothing to guess in 256 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()
