"""The port of the blob store. `local.py` is the real one, `memory.py` its double; tests/contracts/test_blobs.py holds both."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A blob that is there: its key, and its age in seconds."""

    key: str
    age_seconds: float


class Draft(Protocol):
    """Bytes on their way to a blob. Nobody sees them under the key before `place`."""

    size: int  # bytes written so far

    def write(self, data: bytes) -> int:
        """Append."""
        ...

    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        ...

    def reader(self) -> BinaryIO:
        """What was written so far, from its beginning, to read and seek."""
        ...

    def place(self, key: str) -> None:
        """Appear under `key`, at once and whole; an older blob there is replaced. Lasting only after `Blobs.sync`."""
        ...

    def discard(self) -> None:
        """Leave nothing. Does nothing after `place`."""
        ...


class Blobs(Protocol):
    """The store."""

    def draft(self) -> Draft:
        """A new, empty draft."""
        ...

    def sync(self, keys: Iterable[str]) -> None:
        """Return when these blobs, and their names, outlast a power cut."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Read a blob. Raises FileNotFoundError."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Make the new file `path` hold a blob's bytes, for a program that maps it into memory and never writes it.

        It may share the bytes with the store. Raises FileNotFoundError.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a blob; does nothing if there is none."""
        ...

    def owned(self, owner: str) -> list[str]:
        """The keys of all blobs that belong to a job or model."""
        ...

    def stored(self) -> Iterator[Stored]:
        """Every blob, in no order."""
        ...

    def sweep_drafts(self, older_than_seconds: float) -> int:
        """Remove drafts that their program left behind; how many."""
        ...


def copy(blobs: Blobs, key: str, to: str) -> None:
    """Place the bytes of one blob under another key too. Raises FileNotFoundError."""
    draft = blobs.draft()
    try:
        with blobs.open(key) as file:
            while data := file.read(CHUNK_BYTES):
                draft.write(data)
        draft.place(to)
    finally:
        draft.discard()
