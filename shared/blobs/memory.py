"""Blobs in memory: the double of `local.py`, held to the same contract."""

import hashlib
import io
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from shared.blobs.store import Stored
from shared.jobs.job import blob_key


class MemoryDraft:
    """A buffer."""

    def __init__(self, store: "MemoryBlobs") -> None:
        self._store = store
        self._buffer = bytearray()
        self.size = 0

    def write(self, data: bytes) -> int:
        """See `Draft.write`."""
        self._buffer += data
        self.size += len(data)
        return len(data)

    def sha256(self) -> str:
        """See `Draft.sha256`."""
        return hashlib.sha256(self._buffer).hexdigest()

    def reader(self) -> BinaryIO:
        """See `Draft.reader`."""
        return io.BytesIO(bytes(self._buffer))

    def place(self, key: str) -> None:
        """See `Draft.place`."""
        self._store.blobs[key] = (bytes(self._buffer), time.monotonic())

    def discard(self) -> None:
        """See `Draft.discard`."""


class MemoryBlobs:
    """A dictionary."""

    def __init__(self) -> None:
        self.blobs: dict[str, tuple[bytes, float]] = {}

    def draft(self) -> MemoryDraft:
        """See `Blobs.draft`."""
        return MemoryDraft(self)

    def sync(self, keys: Iterable[str]) -> None:
        """See `Blobs.sync`. Raises FileNotFoundError for a blob that is not there, as the real one does."""
        for key in keys:
            self.open(key)

    def open(self, key: str) -> BinaryIO:
        """See `Blobs.open`."""
        if key not in self.blobs:
            raise FileNotFoundError(key)
        return io.BytesIO(self.blobs[key][0])

    def fetch(self, key: str, path: Path) -> None:
        """See `Blobs.fetch`."""
        path.write_bytes(self.open(key).read())

    def delete(self, key: str) -> None:
        """See `Blobs.delete`."""
        self.blobs.pop(key, None)

    def owned(self, owner: str) -> list[str]:
        """See `Blobs.owned`."""
        return [key for key in self.blobs if key.startswith(blob_key(owner, ""))]

    def stored(self) -> Iterator[Stored]:
        """See `Blobs.stored`."""
        now = time.monotonic()
        yield from [Stored(key, now - since) for key, (_, since) in self.blobs.items()]

    def sweep_drafts(self, older_than_seconds: float) -> int:
        """See `Blobs.sweep_drafts`: a lost buffer is already gone."""
        return 0
