"""What a folder run remembers, in the folder of its outputs: which file became which, from what and how, and what is under way."""

import errno
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from client.errors import ClientError

NAME = ".lacuna.db"
FORM = 1

_TABLES = """
CREATE TABLE files (
    path BLOB PRIMARY KEY, asked TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    job TEXT, source_sha256 TEXT, output BLOB UNIQUE, sha256 TEXT, out_size INTEGER, out_mtime_ns INTEGER
) WITHOUT ROWID;
CREATE TABLE runs (server TEXT NOT NULL, asked TEXT NOT NULL, batch TEXT NOT NULL, PRIMARY KEY (server, asked));
"""


@dataclass(frozen=True)
class Known:
    """A file that was sent: by which job, and once it was fetched, where it lies and what it is."""

    job: str
    source_sha256: str | None
    output: bytes | None  # below the folder of outputs; from just before it gets there
    sha256: str | None
    out_size: int | None  # None: it may not have got there
    out_mtime_ns: int | None


class Record:
    """Of one folder of outputs. Each write is on the disk when it returns. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Opens it, or begins it. Raises `ClientError`: folder_busy, or record_unusable."""
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(folder / NAME, timeout=1, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN EXCLUSIVE")
            (form,) = self._db.execute("PRAGMA user_version").fetchone()
            if form == 0:
                for statement in _TABLES.split(";")[:-1]:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={FORM}")
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ClientError("folder_busy", "Another run writes into this folder", "Wait for it, or choose another place.") from error
            raise self._unusable(folder, error) from error
        except sqlite3.DatabaseError as error:
            raise self._unusable(folder, error) from error
        if form > FORM:
            raise self._unusable(folder, f"it is of form {form}, this is `lacuna` of form {FORM}")

    def close(self) -> None:
        """Lets another run open it."""
        self._db.close()

    def batch(self, server: str, asked: str) -> str | None:
        """The batch of the last run that asked this server for the same."""
        with self._lock:
            row = self._do("SELECT batch FROM runs WHERE server = ? AND asked = ?", (server, asked)).fetchone()
        return None if row is None else str(row[0])

    def begin(self, server: str, asked: str, batch: str | None) -> None:
        """The batch of this run; None: it has ended."""
        with self._lock:
            if batch is None:
                self._do("DELETE FROM runs WHERE server = ? AND asked = ?", (server, asked))
            else:
                self._do("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (server, asked, batch))

    def known(self, path: str, asked: str, stat: os.stat_result) -> Known | None:
        """What is known of a file, unless it changed since, or something else is asked now."""
        key = (os.fsencode(path), asked, *_identity(stat))
        query = (
            "SELECT job, source_sha256, output, sha256, out_size, out_mtime_ns FROM files "
            "WHERE path = ? AND asked = ? AND size = ? AND mtime_ns = ? AND inode = ? AND job IS NOT NULL"
        )
        with self._lock:
            row = self._do(query, key).fetchone()
        return None if row is None else Known(*row)

    def sent(self, path: str, asked: str, stat: os.stat_result, job: str, sha256: str) -> None:
        """The file is under way as this job, with these contents."""
        row = (os.fsencode(path), asked, *_identity(stat), job, sha256)
        columns = "path, asked, size, mtime_ns, inode, job, source_sha256"
        with self._lock:
            self._do(f"INSERT OR REPLACE INTO files ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608  names of ours

    def placing(self, path: str, output: Path, sha256: str) -> str | None:
        """The file is about to be at `output`, below the folder. Answers with the path of the file whose output that is already."""
        where = os.fsencode(output)
        with self._lock:
            row = self._do("SELECT path FROM files WHERE output = ? AND path <> ?", (where, os.fsencode(path))).fetchone()
            if row is not None:
                return os.fsdecode(row[0])
            self._do("UPDATE files SET output = ?, sha256 = ?, out_size = NULL WHERE path = ?", (where, sha256, os.fsencode(path)))
        return None

    def placed(self) -> list[Path]:
        """The outputs, below the folder, of which it is not known whether they got there."""
        with self._lock:
            rows = self._do("SELECT output FROM files WHERE output IS NOT NULL AND out_size IS NULL", ()).fetchall()
        return [Path(os.fsdecode(output)) for (output,) in rows]

    def done(self, path: str, stat: os.stat_result) -> None:
        """It is there."""
        row = (stat.st_size, stat.st_mtime_ns, os.fsencode(path))
        with self._lock:
            self._do("UPDATE files SET out_size = ?, out_mtime_ns = ? WHERE path = ?", row)

    def forget(self, path: str) -> None:
        """Its job came to nothing: next time it is sent anew."""
        with self._lock:
            self._do("DELETE FROM files WHERE path = ?", (os.fsencode(path),))

    def _do(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        """Raises `OSError` where the disk is full, or broken."""
        try:
            return self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            number = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
            raise OSError(number, str(error), NAME) from error

    @staticmethod
    def _unusable(folder: Path, why: object) -> ClientError:
        return ClientError(
            "record_unusable", f"{folder / NAME} cannot be used", f"{why}. Move it away to begin anew: outputs that are there stay."
        )


def _identity(stat: os.stat_result) -> tuple[int, int, int]:
    """Size, time in ns and inode as SQLite holds them, in 64 bits with a sign: inodes of pooled and remote disks use all bits."""
    return stat.st_size, _signed(stat.st_mtime_ns), _signed(stat.st_ino)


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
