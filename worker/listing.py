"""One attempt at listing a folder: every picture below it becomes a job of its batch, all else is noted.

It may die anywhere: the next attempt leaves what was found already. Without a batch it only counts: a dry run.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from uuid_utils import uuid7

from shared import events
from shared.batches.batch import Noted
from shared.errors import CODES, LacunaError, Refused, Transient
from shared.folders import inputs, names
from shared.folders import order as orders
from shared.folders.folder import Entry, Folder
from shared.folders.order import FolderOrder
from shared.jobs.job import Job, Kind, Lane, NewJob, Success, cost_mpx
from worker.committer import Committer
from worker.ending import end
from worker.keeper import Held, LeaseLost
from worker.patience import until_answered
from worker.wiring import Ports

LISTING_SECONDS = 6 * 3600.0
CHUNK = 500  # files that become rows together
BELLS = 16  # enough to wake every thread of a worker
GROWS = {"png": 6, "tiff": 6, "bmp": 12}  # about how much larger a JPEG or WebP becomes


def list_folder(held: Held, ports: Ports, committer: Committer) -> None:
    """Look how much there is, then make jobs of it."""

    def find(report: "Report") -> int:
        with ExitStack() as opened:
            listing = Listing.open(held, ports, opened)
            files = listing.survey()
            for chunk in chunks(listing.found(), CHUNK):
                report.count(chunk)
                held.progress(min(report.files, files), files)
                if held.job.batch_id is not None:
                    accept(held, ports, chunk, ring=report.files <= CHUNK)
            return listing.target.free()

    attempt(held, ports, committer, find)


def attempt(held: Held, ports: Ports, committer: Committer, find: "Callable[[Report], int]") -> None:
    """Let `find` make jobs of what there is, count it in the report, and say how many bytes are free. The row of the batch follows."""
    job = held.job
    began = time.monotonic()
    held.begin(LISTING_SECONDS)
    try:
        report = Report()
        told = report.told(job, ports, find(report), began)
        if job.batch_id is not None:
            batch_id = job.batch_id
            until_answered(lambda: ports.batches.listed(batch_id))
            events.emit("batch.listed", batch_id=batch_id, files=report.files, pixels=report.pixels)
        held.conclude()
        committer.succeed(Success(job, told, None, [], units=max(report.files, 1)))
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)
        until_answered(ports.batches.fail_unlisted)


@dataclass
class Report:
    """What there is to do."""

    files: int = 0
    pictures: int = 0
    pixels: int = 0
    bytes: int = 0
    skipped: int = 0
    done_before: int = 0  # of the skipped
    failed: int = 0
    ignored: int = 0
    mpx: float = 0.0

    def count(self, chunk: "list[NewJob | Noted]") -> None:
        """These too."""
        for found in chunk:
            self.files += 1
            if isinstance(found, Noted):
                setattr(self, found.state, getattr(self, found.state) + 1)
                self.done_before += found.note == "done_before"
            else:
                self.pictures += 1
                self.pixels += found.pixels
                self.bytes += found.input["bytes"]
                self.mpx += cost_mpx(found.pixels, found.params)

    def told(self, job: Job, ports: Ports, free: int, began: float) -> dict[str, Any]:
        """As the job's result. `restoring_s` is what one worker will take, None while its model's rate is unknown."""
        rate = until_answered(ports.jobs.load).rates.get((job.model_name, job.model_version))
        return {
            "files": self.files, "pictures": self.pictures, "pixels": self.pixels, "bytes": self.bytes, "skipped": self.skipped,
            "done_before": self.done_before,
            "failed": self.failed, "ignored": self.ignored, "restoring_s": None if rate is None else round(self.mpx * rate, 1),
            "free": free, "seconds": round(time.monotonic() - began, 3),
        }  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """A folder that is gone through, with the folders beside it that its order names."""

    held: Held
    ports: Ports
    order: FolderOrder
    source: Folder
    target: Folder
    mask: dict[str, Any] | None
    masks: Folder | None
    references: Folder | None

    @classmethod
    def open(cls, held: Held, ports: Ports, opened: ExitStack) -> "Listing":
        """Raises `Refused` where a folder, or the one mask, is not there or not allowed."""
        order, roots = FolderOrder(**held.job.input["order"]), ports.outputs.roots
        source, target = opened.enter_context(roots.source(order.folder)), opened.enter_context(roots.target(order.out))
        masks = None if order.masks is None else opened.enter_context(roots.source(order.masks))
        references = None if order.references is None else opened.enter_context(roots.source(order.references))
        mask = None
        if order.mask is not None:
            place = PurePosixPath(order.mask)
            with roots.source(str(place.parent)) as folder:
                mask = inputs.described(folder, str(place.parent), place.name, ports.settings.max_pixels)
        return cls(held, ports, order, source, target, mask, masks, references)

    def survey(self) -> int:
        """How many files there are.

        Raises `Refused` folder_empty, disk_too_small, too_many_jobs.
        """
        files, pictures, size = 0, 0, 0
        wanted = self.held.job.params["format"]
        ending = names.ENDINGS["png" if wanted == "keep" else wanted][0]  # what is filled becomes a PNG
        for number, entry in enumerate(self.source.walk()):
            if number % CHUNK == 0:
                self.held.check()
            files += 1
            if entry.stat is None or not self._is_wanted(entry.path):
                continue
            pictures += 1
            if not self._is_there(entry.path, ending):
                grows = GROWS.get(wanted, 1) if entry.path.lower().endswith(_LOSSY) else 1
                size += entry.stat.st_size * grows
        if not pictures:
            raise Refused("folder_empty")
        if self.held.job.batch_id is not None:
            self._check_room(pictures, size)
        return files

    def _is_there(self, path: str, ending: str) -> bool:
        """Whether something lies at the place of the output, as far as a name tells: at the same path, or with another ending behind it."""
        try:
            return self.target.stat(path) is not None or self.target.stat(path + ending) is not None
        except (Refused, OSError):  # which is that picture's error, later
            return False

    def _check_room(self, pictures: int, size: int) -> None:
        settings = self.ports.settings
        room = self.target.free() - settings.min_free
        if size > room:
            raise Refused("disk_too_small", f"They take about {size / 1e9:.1f} GB, and {max(room, 0) / 1e9:.1f} GB may be used there.")
        require_queue(self.held, self.ports, pictures)

    def at(self, path: str) -> "Iterator[NewJob | Noted]":
        """What failed there, whether its output is there or not: a file, or all below a folder that could not be looked into."""
        try:
            there = self.source.stat(path)
            if there is None:
                path = names.untold(path)
                there = self.source.stat(path)
            if there is None:
                raise Refused("file_gone")
            if not stat.S_ISDIR(there.st_mode):
                yield self._look(Entry(path, there))
                return
            with self.source.below(path.split("/")) as folder:
                for entry in folder.walk():
                    yield self._look(replace(entry, path=f"{path}/{entry.path}" if entry.path else path))
                    if not entry.path:
                        return
            yield Noted(names.told(path), "ignored", note="no_picture")  # last: who dies before finds it again
        except Refused as refused:
            yield Noted(names.told(path), "failed", error_of(refused))
        except OSError as error:
            yield Noted(names.told(path), "failed", error_of(unreadable(error)))

    def found(self) -> "Iterator[NewJob | Noted]":
        """Each file once: the job that it becomes, or why it becomes none."""
        for entries in chunks(self.source.walk(), CHUNK):
            looked = [self._look(entry) for entry in entries]
            places = [self._place(found) for found in looked if isinstance(found, NewJob)]
            known = until_answered(lambda places=places: self.ports.batches.known_outputs(places))  # type: ignore[misc]
            for found in looked:
                yield found if isinstance(found, Noted) else self._unless_done(found, known.get(self._place(found)))

    def _look(self, entry: Entry) -> NewJob | Noted:
        path = names.told(entry.path)
        if entry.error is not None:
            return Noted(path, "failed", error_of(unreadable(entry.error)))
        if entry.stat is None or not self._is_wanted(entry.path):
            return Noted(path, "ignored", bytes=None if entry.stat is None else entry.stat.st_size, note="no_picture")
        try:
            if names.is_long(entry.path) or names.is_long(f"{self.order.out}/{path}.jpeg"):  # whatever the ending becomes
                raise Refused(
                    "file_unreadable", f"Its path, or that of its output, has more than {names.LONGEST} bytes. Use a nearer folder."
                )
            return self._job(entry.path)
        except Refused as refused:
            return Noted(path, "failed", error_of(refused), entry.stat.st_size)
        except OSError as error:
            return Noted(path, "failed", error_of(unreadable(error)), entry.stat.st_size)

    def _job(self, path: str) -> NewJob:
        """The job of the picture there. Raises `Refused` for what its header shows, and for what belongs to it and is not there."""
        listing, max_pixels = self.held.job, self.ports.settings.max_pixels
        described = inputs.described(self.source, self.order.folder, path, max_pixels)
        parts = {}
        if listing.task == "inpaint":
            parts["mask"] = self.mask or self._beside("mask", self.masks, self.order.masks, path)
        if self.references is not None:
            parts["reference"] = self._beside("reference", self.references, self.order.references, path)
        output = orders.output(listing, described | parts, self.order.out, self.order.overwrite)
        if len(os.fsencode(PurePosixPath(output["path"]).name)) > self.target.longest_name():
            raise Refused("name_too_long")
        if output["path"] != path and self.source.stat(output["path"]) is not None:
            raise Refused("output_taken", f"Its output and that of {names.told(output['path'])} would have the same name.")
        return picture(listing, str(uuid7()), self.order.lane, names.told(path), described | parts, output)

    def _beside(self, name: str, folder: Folder | None, place: str | None, path: str) -> dict[str, Any]:
        """The mask or reference of a picture."""
        found = None if folder is None else folder.alike(path)
        if folder is None or place is None or found is None:
            raise Refused(f"{name}_missing", f"There is no {name} of that name.")
        try:
            return inputs.described(folder, place, found, self.ports.settings.max_pixels)
        except Refused as refused:
            raise refused.of(name) from refused

    def _unless_done(self, new: NewJob, known: Any) -> NewJob | Noted:
        """Or why it is passed over; what stands in the way of that one look is that picture's error."""
        try:
            return self._passed(new, known)
        except Refused as refused:
            return Noted(new.path or "", "failed", error_of(refused), new.input["bytes"])
        except OSError as error:
            return Noted(new.path or "", "failed", error_of(unreadable(error)), new.input["bytes"])

    def _passed(self, new: NewJob, known: Any) -> NewJob | Noted:
        """Passed over where it was done before, from the same and in the same way, or where something else is in the way."""
        there = self.target.stat((new.output or {})["path"])
        if there is None:
            return new
        size = new.input["bytes"]
        if known is not None and known.asked == (new.output or {})["asked"] and self._stands(new, known, there) and self._same(new, known):
            return Noted(new.path or "", "skipped", None, size, known.source_sha256, "done_before")
        return new if self.order.overwrite else Noted(new.path or "", "skipped", None, size, note="output_exists")

    def _stands(self, new: NewJob, known: Any, there: Any) -> bool:
        """Whether the output is as it was published."""
        if not stat.S_ISREG(there.st_mode):
            return False
        if self.order.verify:
            with self.target.file((new.output or {})["path"]) as file:
                return bool(inputs.sha256(file) == known.sha256)
        return bool((there.st_size, there.st_mtime_ns) == (known.size, known.mtime_ns))

    def _same(self, new: NewJob, known: Any) -> bool:
        """Whether the picture is the one that it was restored from, by its times, else by its contents."""
        found = new.input
        times = (names.told(f"{found['folder']}/{found['path']}"), found["bytes"], found["mtime_ns"], found["inode"])
        if not self.order.verify and times == (known.source, known.source_size, known.source_mtime_ns, known.source_inode):
            return True
        if found["bytes"] != known.source_size:
            return False
        with self.source.file(found["path"]) as file:
            return bool(inputs.sha256(file) == known.source_sha256)

    def _place(self, new: NewJob) -> str:
        return names.place(new.output or {})

    def _is_wanted(self, path: str) -> bool:
        return names.is_wanted(path, self.order.pattern)


def require_queue(held: Held, ports: Ports, pictures: int) -> None:
    """Whether so many may wait beside what else its owner has waiting; what an attempt before found is among them.

    Raises `Refused("too_many_jobs")`.
    """
    job, most = held.job, ports.settings.max_queued
    if until_answered(lambda: ports.jobs.unfinished(job.owner_id, most, job.batch_id)) + pictures > most:
        raise Refused("too_many_jobs")


def picture(listing: Job, job_id: str, lane: str, path: str, given: dict[str, Any], output: dict[str, Any] | None = None) -> NewJob:
    """The job of a picture that `listing` found at `path`; `given` is its input."""
    return NewJob(
        id=job_id, owner_id=listing.owner_id, kind=Kind.RESTORE, lane=Lane(lane), task=listing.task, model_name=listing.model_name,
        model_version=listing.model_version, input=given, params=listing.params, pixels=given["width"] * given["height"],
        max_attempts=listing.max_attempts, request_id=listing.request_id, label=listing.label, batch_id=listing.batch_id, path=path,
        output=output,
    )  # fmt: skip


def accept(held: Held, ports: Ports, chunk: "list[NewJob | Noted]", ring: bool) -> None:
    """Rows, then bells: the first wake every thread, which then find the others."""
    job = held.job
    news, noted = [found for found in chunk if isinstance(found, NewJob)], [found for found in chunk if isinstance(found, Noted)]
    until_answered(lambda: ports.batches.note_found(job, noted))
    if news and until_answered(lambda: ports.jobs.accept_found(job, news)) < 0:
        raise LeaseLost
    for new in news[:BELLS] if ring else []:
        ports.ringer.ring(new.lane, new.id)


def chunks(found: Any, size: int) -> Iterator[list[Any]]:
    """So many at a time."""
    chunk = []
    for each in found:
        chunk.append(each)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


_LOSSY = tuple(ending for name in ("jpeg", "webp") for ending in names.ENDINGS[name])


def unreadable(error: OSError) -> Refused:
    """A sentence without the place that the system names."""
    return Refused("link_refused" if error.errno == errno.ELOOP else "file_unreadable", f"The system says: {error.strerror or 'no'}.")


def error_of(refused: LacunaError) -> dict[str, Any]:
    """As an item shows it."""
    return {"code": refused.code, "title": CODES[refused.code].title, "detail": refused.detail, "retryable": isinstance(refused, Transient)}
