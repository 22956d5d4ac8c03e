"""One attempt at unpacking an archive: every picture in it becomes a job of its batch, as if it had been uploaded; all else is noted.

The archive is checked as a whole before anything is made. It may die anywhere: the next attempt leaves what was accepted already, and
blobs that became no job are swept. When nobody will unpack it any more, the archive goes.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from uuid_utils import uuid7

from shared import disk
from shared.archives import archive as archives
from shared.archives.archive import Archive, Member
from shared.batches.batch import Noted
from shared.errors import Refused, Transient
from shared.folders import names
from shared.imaging import header
from shared.jobs.job import NewJob, blob_key
from worker.committer import Committer
from worker.keeper import Held
from worker.listing import CHUNK, Report, accept, attempt, error_of, picture, require_queue
from worker.patience import until_answered
from worker.wiring import Ports

CHUNK_BYTES = 64_000_000  # unpacked before they become rows together: the first pictures should not wait for long


def unpack(held: Held, ports: Ports, committer: Committer) -> None:
    """Check it, then make jobs of its pictures; let the archive go unless another attempt may follow."""
    attempt(held, ports, committer, lambda report: _find(held, ports, report))
    ended = until_answered(lambda: ports.jobs.get(held.job.id))
    if ended is None or ended.final:
        with contextlib.suppress(OSError):  # the sweeper takes it
            ports.blobs.delete(held.job.input["key"])


def _find(held: Held, ports: Ports, report: Report) -> int:
    with ports.blobs.open(held.job.input["key"]) as file, archives.opened(file) as archive:
        unpacking = Unpacking(held, ports, archive)
        unpacking.check()
        for chunk in unpacking.chunks():
            unpacking.take(chunk, report)
    return disk.free(ports.settings)


@dataclass(frozen=True)
class Unpacking:
    """An archive whose pictures are taken out."""

    held: Held
    ports: Ports
    archive: Archive

    def check(self) -> None:
        """Raises `Refused` archive_empty, archive_bomb, archive_corrupt or too_many_jobs."""
        settings = self.ports.settings
        wanted = [member for member in self.archive.members if self._is_wanted(member)]
        if not wanted:
            raise Refused("archive_empty")
        self.archive.check_sizes(wanted, settings.max_upload, disk.free(settings) - settings.min_free)
        require_queue(self.held, self.ports, len(wanted))

    def chunks(self) -> Iterator[list[Member]]:
        """All files, as many at a time as become rows together."""
        chunk, size = [], 0
        for member in self.archive.members:
            chunk.append(member)
            size += member.size if self._is_wanted(member) else 0
            if len(chunk) == CHUNK or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def take(self, chunk: list[Member], report: Report) -> None:
        """Blobs, synced, then rows, then bells. Raises `LeaseLost`, `Transient("storage_full")`."""
        first, batch_id = not report.files, self.held.job.batch_id or ""
        known = until_answered(lambda: self.ports.batches.pictures(batch_id, [member.path for member in chunk]))
        placed: dict[str, str] = {}  # the ids of jobs, and their blobs
        try:
            found: list[NewJob | Noted] = []
            for member in chunk:
                self.held.progress(report.files + len(found), len(self.archive.members))
                if member.path not in known:
                    found.append(self._taken(member, placed))
            self.ports.blobs.sync(placed.values())
            accept(self.held, self.ports, found, ring=first)
        except Exception:
            self._forget(placed)
            raise
        report.count(found)
        report.files += len(known)
        report.pictures += len(known)

    def _taken(self, member: Member, placed: dict[str, str]) -> NewJob | Noted:
        """The job of a picture, whose blob is in its place; or why it is none."""
        if not self._is_wanted(member):
            return Noted(member.path, "ignored", bytes=member.size, note="no_picture")
        if disk.nearly_full(self.ports.settings):
            raise Transient("storage_full")
        job_id = str(uuid7())
        draft = self.ports.blobs.draft()
        try:
            self.archive.unpack(member, draft, self.held.check)
            with draft.reader() as file:
                found = header.read(file, draft.size, self.ports.settings.max_pixels)
            given: dict[str, Any] = {
                "name": member.path.rsplit("/", 1)[-1], "bytes": draft.size, "sha256": draft.sha256(), "format": found.format,
                "width": found.width, "height": found.height, "mode": found.mode, "bits": found.bits, "key": blob_key(job_id, "upload"),
            }  # fmt: skip
            placed[job_id] = given["key"]
            draft.place(given["key"])
        except Refused as refused:
            return Noted(member.path, "failed", error_of(refused), member.size)
        finally:
            draft.discard()
        return picture(self.held.job, job_id, self._asked["lane"], member.path, given)

    def _forget(self, placed: dict[str, str]) -> None:
        """Delete the blobs of those that became no jobs: an answer may have been lost, so the rows say which."""
        there = self.ports.jobs.these(placed)
        for job_id, key in placed.items():
            if job_id not in there:
                self.ports.blobs.delete(key)

    def _is_wanted(self, member: Member) -> bool:
        return names.is_wanted(member.path, self._asked["pattern"])

    @property
    def _asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = self.held.job.input["asked"]
        return asked
