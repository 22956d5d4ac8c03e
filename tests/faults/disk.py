"""A disk that forgets, when power fails, whatever was not synced: the worst that the rules of POSIX allow it to do.

Programs in the wiring `volatile` note what they sync. After all were killed, `cut` takes the rest from the blobs: a file whose
bytes were not synced is empty, a name whose folder was not synced since is gone. What the database committed stays: that is
its own promise. So do previews, of which nothing is promised (worker/restoration.py).
"""

import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.jobs.job import PREVIEWS, preview_part

NOTES = "synced"


def note(home: Path, descriptor: int) -> None:
    """This file or folder is synced as it is now."""
    found = os.fstat(descriptor)
    folder = stat.S_ISDIR(found.st_mode)
    names = {entry.name: entry.inode() for entry in os.scandir(descriptor)} if folder else None
    synced = {"inode": found.st_ino, "names": names, "changed": None if folder else found.st_mtime_ns}
    (home / NOTES).mkdir(exist_ok=True)
    with (home / NOTES / str(os.getpid())).open("a", encoding="ascii") as notes:
        notes.write(json.dumps(synced) + "\n")


def cut(home: Path) -> None:
    """Power fails. Nothing of this home may run any more."""
    lasting: dict[int, set[tuple[str, int]]] = {}  # of folders: names and what they are of
    written = set()  # of files: their bytes, by when they changed
    for notes in (home / NOTES).glob("*"):
        for line in notes.read_text(encoding="ascii").splitlines():
            synced: Mapping[str, Any] = json.loads(line)
            if synced["names"] is None:
                written.add((synced["inode"], synced["changed"]))
            else:
                lasting.setdefault(synced["inode"], set()).update(synced["names"].items())
    _forget(home / "blobs", lasting, written)


def _forget(folder: Path, lasting: Mapping[int, set[tuple[str, int]]], written: set[tuple[int, int]]) -> None:
    known = lasting.get(folder.stat().st_ino, set())
    for path in list(folder.iterdir()):
        found = path.stat()
        if path.name.startswith(KEPT):
            continue
        if (path.name, found.st_ino) not in known:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path.is_dir():
            _forget(path, lasting, written)
        elif (found.st_ino, found.st_mtime_ns) not in written:
            os.truncate(path, 0)


KEPT = tuple(preview_part(of, 0).removesuffix("0") for of in PREVIEWS)
