"""Outputs in the user's own folders: written beside their place under a name of ours, and renamed once they count.

An attempt writes `.lacuna-<job>.<token>.part`; the commit, which its token guards, says that it counts; then it is renamed. A lost
attempt's part is never renamed by anybody. Who dies between commit and rename leaves it to upkeep.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

from shared.errors import Refused
from shared.folders import names
from shared.folders.folder import Folder
from shared.folders.roots import Roots
from shared.jobs.job import Job


@dataclass(frozen=True)
class Placed:
    """An output that was renamed: of which job, where, and how the file can be known again; without a size if it is not there."""

    job: Job
    place: str
    size: int | None
    mtime_ns: int


class OutputDraft:
    """As `shared.blobs.store.Draft`, but where a job's output will be."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file = folder.new(name)
        self._hash = hashlib.sha256()
        self._placed = False
        self.size = 0

    def write(self, data: bytes) -> int:
        """Append. Raises OSError where there is no room."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def sha256(self) -> str:
        """Of all that was written."""
        return self._hash.hexdigest()

    def reader(self) -> BinaryIO:
        """What was written, from its beginning."""
        self._file.flush()
        return self._folder.file(self._name)

    def place(self, _key: str) -> None:
        """It is whole, and stays."""
        self._file.close()
        self._placed = True

    def discard(self) -> None:
        """Remove it, unless it was placed; let the folder go."""
        with self._folder:
            if not self._placed:
                with contextlib.suppress(OSError):  # the disk is full: what was not written yet is not wanted
                    self._file.close()
                self._folder.remove(self._name)


@dataclass(frozen=True)
class Outputs:
    """Of jobs whose `output` names a folder and a path in it."""

    roots: Roots

    def draft(self, job: Job) -> OutputDraft:
        """A new part. Raises `Refused` output_exists where something else is in the way and may not be replaced."""
        output = _output(job)
        with self.roots.target(output["folder"]) as target:
            there = target.stat(output["path"])
            if there is not None and (not output["overwrite"] or stat.S_ISDIR(there.st_mode)):
                raise Refused("output_exists")
            folder, _ = target.around(output["path"], make=True)
        return OutputDraft(folder, names.part(job.id, job.token))

    def free(self, job: Job) -> int:
        """Bytes that may still be written where the output goes."""
        with self.roots.target(_output(job)["folder"]) as target:
            return target.free()

    def sync(self, jobs: Iterable[Job], renamed: Iterable[Placed] = ()) -> None:
        """Make parts, their entries, and those of what was renamed last."""
        of_renamed = self._by_folder(placed.job for placed in renamed if placed.size is not None)
        parts = self._by_folder(jobs)
        for folder in dict.fromkeys([*parts, *of_renamed]):
            with self._folder(folder) as held:
                for job, _ in parts.get(folder, []):
                    with held.file(names.part(job.id, job.token)) as file:
                        os.fsync(file.fileno())
                held.sync()

    def place(self, job: Job) -> Placed:
        """Rename the part of a committed job. `sync` makes it last; only then may a row say so. Raises OSError, `Refused`.

        What somebody else put there since the part was begun stays, unless it may be replaced; then the part keeps its name.
        """
        output = _output(job)
        place = names.place(output)
        try:
            with self.roots.target(output["folder"]) as target:
                folder, name = target.around(output["path"])
        except Refused as refused:
            if refused.code == "folder_not_found":  # removed with all that was in it
                return Placed(job, place, None, 0)
            raise
        with folder:
            part = names.part(job.id, job.token)
            try:
                with contextlib.suppress(FileNotFoundError):  # renamed already, by who died then, or by upkeep just now
                    (folder.rename if output["overwrite"] else folder.settle)(part, name)
            except (FileExistsError, IsADirectoryError):
                return Placed(job, place, None, 0)
            found = folder.stat(name)
        there = found is not None and job.result is not None and found.st_size == job.result["bytes"]
        return Placed(job, place, found.st_size, found.st_mtime_ns) if found is not None and there else Placed(job, place, None, 0)

    def open(self, job: Job) -> BinaryIO:
        """What lies in the place of a job's output, or its part where it was not renamed. Raises `Refused`, if nothing does any more."""
        output = _output(job)
        with self.roots.target(output["folder"]) as target:
            try:
                return target.file(names.beside(output["path"], names.part(job.id, job.token)))
            except Refused:
                return target.file(output["path"])

    def tidy(self, job: Job, tokens: Iterable[int]) -> None:
        """Remove the parts of attempts that are known to be lost. Raises OSError, `Refused`."""
        output = _output(job)
        try:
            with self.roots.target(output["folder"]) as target:
                folder, _ = target.around(output["path"])
        except Refused as refused:
            if refused.code == "folder_not_found":  # then nothing is in it
                return
            raise
        with folder:
            for token in tokens:
                folder.remove(names.part(job.id, token))

    def _folder(self, place: tuple[str, tuple[str, ...]]) -> Folder:
        root, inner = place
        with self.roots.target(root) as target:
            return target.below(inner)

    @staticmethod
    def _by_folder(jobs: Iterable[Job]) -> dict[tuple[str, tuple[str, ...]], list[tuple[Job, str]]]:
        found: dict[tuple[str, tuple[str, ...]], list[tuple[Job, str]]] = {}
        for job in jobs:
            *folders, name = _output(job)["path"].split("/")
            found.setdefault((_output(job)["folder"], tuple(folders)), []).append((job, name))
        return found


def _output(job: Job) -> dict[str, Any]:
    if job.output is None:
        raise ValueError(f"job {job.id} has no output")
    return job.output
