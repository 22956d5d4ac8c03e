"""Blobs as files of one folder: written beside, renamed into place, synced with their directory."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from uuid_utils import uuid7

from shared.blobs.store import Stored
from shared.jobs.job import blob_key

DRAFTS = ".drafts"


class LocalDraft:
    """A temporary file in the store's own file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / DRAFTS / str(uuid7())
        try:
            self._file: BinaryIO = _new(self._path)
        except FileNotFoundError:  # the store's first
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _new(self._path)
        self._hash = hashlib.sha256()
        self._placed = False
        self.size = 0

    def write(self, data: bytes) -> int:
        """See `Draft.write`."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def sha256(self) -> str:
        """See `Draft.sha256`."""
        return self._hash.hexdigest()

    def reader(self) -> BinaryIO:
        """See `Draft.reader`."""
        self._file.flush()
        return self._path.open("rb")

    def place(self, key: str) -> None:
        """See `Draft.place`."""
        self._file.close()
        target = self._root / key
        while not self._placed:
            with contextlib.suppress(FileExistsError):  # and `delete` removed the folder as empty just now
                target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._path.replace(target)
                self._placed = True
            except FileNotFoundError:  # the same
                if not self._path.exists():
                    raise

    def discard(self) -> None:
        """See `Draft.discard`."""
        if not self._placed:
            with contextlib.suppress(OSError):  # the disk is full: what was not written yet is not wanted
                self._file.close()
            self._path.unlink(missing_ok=True)


def _new(path: Path) -> BinaryIO:
    """A file that nobody else opens or reads; `tempfile` takes several times as long to find it a name."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b")


def _to_the_platter(descriptor: int) -> None:
    """Sync; on macOS fsync alone leaves the bytes in the drive's cache."""
    if (full_sync := getattr(fcntl, "F_FULLFSYNC", None)) is not None:
        with contextlib.suppress(OSError):  # some file systems do not know it
            fcntl.fcntl(descriptor, full_sync)
            return
    os.fsync(descriptor)


class LocalBlobs:
    """The folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lasting: set[Path] = set()  # shards whose entry in the root was synced; they are never removed

    def draft(self) -> LocalDraft:
        """See `Blobs.draft`."""
        return LocalDraft(self._root)

    def sync(self, keys: Iterable[str]) -> None:
        """See `Blobs.sync`: each file, its directory and its shard, and the root where the shard may be new, once."""
        paths = [self._root / key for key in keys]
        folders = {path.parent for path in paths}
        shards = {folder.parent for folder in folders}
        root = [] if shards <= self._lasting else [self._root]
        for path in [*paths, *folders, *shards, *root]:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                _to_the_platter(descriptor)
            finally:
                os.close(descriptor)
        self._lasting |= shards

    def open(self, key: str) -> BinaryIO:
        """See `Blobs.open`."""
        return (self._root / key).open("rb")

    def fetch(self, key: str, path: Path) -> None:
        """See `Blobs.fetch`: a link, where both lie on one file system."""
        try:
            path.hardlink_to(self._root / key)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copyfile(self._root / key, path)

    def delete(self, key: str) -> None:
        """See `Blobs.delete`; the folder goes too when it became empty."""
        path = self._root / key
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or gone already
            path.parent.rmdir()

    def owned(self, owner: str) -> list[str]:
        """See `Blobs.owned`."""
        try:
            return [blob_key(owner, path.name) for path in (self._root / blob_key(owner, "")).iterdir()]
        except FileNotFoundError:
            return []

    def stored(self) -> Iterator[Stored]:
        """See `Blobs.stored`."""
        now = time.time()
        for folder, folders, names in os.walk(self._root):  # not glob: it raises where a folder is removed meanwhile
            if DRAFTS in folders:
                folders.remove(DRAFTS)
            for path in (Path(folder, name) for name in names):
                try:
                    yield Stored(path.relative_to(self._root).as_posix(), now - path.stat().st_mtime)
                except FileNotFoundError:  # removed meanwhile
                    continue

    def sweep_drafts(self, older_than_seconds: float) -> int:
        """See `Blobs.sweep_drafts`."""
        old = time.time() - older_than_seconds
        swept = 0
        for path in (self._root / DRAFTS).glob("*"):
            try:
                if path.stat().st_mtime < old:
                    path.unlink()
                    swept += 1
            except FileNotFoundError:  # placed meanwhile
                continue
        return swept
