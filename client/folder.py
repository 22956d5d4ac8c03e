"""Restores a whole tree: several files at a time, each sent into a batch, waited for, fetched and remembered. Run again, it goes on.

A bad file is one failed file. A server that is away for a while is waited for. Inputs are never written to, and an output is there
whole or not at all.
"""

import contextlib
import errno
import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from client.errors import ClientError, ProblemError, ServerUnreachable, Stopped, UnexpectedAnswer
from client.http import Job, Lacuna
from client.outputs import asked_change, format_named, named_as, told_change
from client.record import NAME, Known, Record
from client.restoring import disk_error, end_of

IN_FLIGHT = 8
PATIENCE_S = 600.0  # for a server that answered before, and is away or has no room
PAUSE_S = 5.0
POLL_S = 2  # how long Ctrl-C may take
MOST_ANEW = 3  # that one file is sent in one run
GONE = frozenset({"job_not_found", "result_expired"})  # of what was sent before: it is sent anew
PASSING = frozenset({429, 502, 503, 504})  # it has no room now, or something before it cannot reach it
RECEIVED = "idempotency_in_progress"  # by an API that died: for a minute nobody else may take its place
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
OVER = frozenset({"batch_state", "batch_not_found"})  # somebody sealed it, or canceled it at the end
CLOSED = frozenset({"batch_not_open", "path_taken", "batch_not_found"})
OURS = ".lacuna"  # how the names of our own files begin

Fate = Literal["restored", "kept", "skipped", "failed"]


@dataclass(frozen=True)
class FolderOrder:
    """What the user asked for: everything below `source` is restored to the same place below `out`."""

    source: Path
    out: Path
    mask: Path | None = None  # one for all, or a folder with one for each, by name
    references: Path | None = None  # a folder with the same pictures undamaged
    overwrite: bool = False
    verify: bool = False  # what was done before is known by its contents, not by its times
    fields: Mapping[str, Any] = field(default_factory=dict)  # task, format and more, as `Lacuna.restore` takes them

    @property
    def asked(self) -> str:
        """What an output depends on, beside its input: the same for the same order."""
        given = {"fields": dict(self.fields), "mask": _identity(self.mask), "references": _identity(self.references)}
        return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Ended:
    """How it ended for one file."""

    path: str
    fate: Fate
    output: Path | None = None
    job: Job | None = None
    error: ClientError | None = None


@dataclass
class Tally:
    """How many files came to what."""

    total: int = 0
    restored: int = 0
    kept: int = 0  # done by an earlier run, and unchanged
    skipped: int = 0  # something else is in their place
    failed: int = 0
    ignored: int = 0  # no pictures

    def count(self, fate: Fate) -> None:
        """One more."""
        setattr(self, fate, getattr(self, fate) + 1)

    @property
    def ended(self) -> int:
        """How many are over."""
        return self.restored + self.kept + self.skipped + self.failed


class FolderScreen(Protocol):
    """Shows the run to the user. Called from one thread only."""

    def began(self, tally: Tally) -> None:
        """It is known how many files there are."""

    def ended(self, ended: Ended, tally: Tally) -> None:
        """Nothing more happens to this file."""

    def away(self, error: ClientError) -> None:
        """The server is waited for."""


class FolderRun:
    """One run over a folder."""

    def __init__(self, base_url: str, order: FolderOrder, screen: FolderScreen, *, key: str | None = None) -> None:
        self.order = order
        self.tally = Tally()
        self.batch: str | None = None
        self._screen = screen
        self._asked = order.asked
        self._stopped = threading.Event()
        self._lacuna = Lacuna(base_url, key=key, stopped=self._stopped)
        self._record: Record | None = None  # opened by the run
        self._news: queue.Queue[Ended | ClientError | None] = queue.Queue()
        self._beginning = threading.Lock()
        self._end: ClientError | None = None  # what ends the whole run
        self._crash: Exception | None = None  # what nobody foresaw, of a thread

    def run(self) -> Tally:
        """All files. Raises the `ClientError` that ended the run, and `KeyboardInterrupt` after what is under way was let go."""
        _check_places(self.order.source, self.order.out)
        _make(self.order.out)
        self._record = Record(self.order.out)
        try:
            self._tidy()
            self.tally.total = sum(1 for _ in walk(self.order.source, self._ignore))
            self._screen.began(self.tally)
            self._work()
        finally:
            self._stopped.set()
            self._lacuna.close()
            self._known.close()
        if self._crash is not None:
            raise self._crash
        if self._end is not None:
            raise self._end
        return self.tally

    def survey(self) -> tuple[Tally, int]:
        """What there is to do, without asking the server: the files that need nothing are counted as ended; and the bytes of the others."""
        _check_places(self.order.source, self.order.out)
        size = 0
        with contextlib.ExitStack() as opened:
            if (self.order.out / NAME).exists():
                self._record = opened.enter_context(contextlib.closing(Record(self.order.out)))
            for found in walk(self.order.source, self._ignore):
                self.tally.total += 1
                if isinstance(found, Unreadable):
                    self.tally.count("failed")
                elif (fate := self._needless(found)) is not None:
                    self.tally.count(fate)
                else:
                    size += found.stat.st_size
        return self.tally, size

    @property
    def _known(self) -> Record:
        """The record, while the run lasts."""
        if self._record is None:
            raise RuntimeError("the run has not begun")
        return self._record

    def _tidy(self) -> None:
        """Take away what a killed forerunner had fetched a part of: that file may never be fetched again."""
        for output in self._known.placed():
            with contextlib.suppress(OSError):
                self._part(output).unlink()

    def _ignore(self, _: str) -> None:
        self.tally.ignored += 1

    def _work(self) -> None:
        files, drawing = walk(self.order.source, lambda _: None), threading.Lock()
        threads = [threading.Thread(target=self._work_on, args=[files, drawing], name="folder", daemon=True) for _ in range(IN_FLIGHT)]
        for thread in threads:
            thread.start()
        try:
            self._listen(len(threads))
        except BaseException:
            self._stopped.set()
            raise
        finally:
            for thread in threads:
                thread.join()
        if self._end is None and self._crash is None and self.batch is not None:
            self._seal(self.batch)

    def _work_on(self, files: "Iterator[Found | Unreadable]", drawing: threading.Lock) -> None:
        """One file after the other, until there are no more."""
        try:
            while not self._stopped.is_set():
                with drawing:
                    found = next(files, None)
                if found is None:
                    return
                self._news.put(self._ended(found))
        except Stopped:
            pass
        except Exception as crash:  # noqa: BLE001  # the run raises it
            self._crash = crash
            self._stopped.set()
        finally:
            self._news.put(None)

    def _listen(self, working: int) -> None:
        """Tell the screen what happens, until all threads have ended."""
        while working:
            news = self._news.get()
            if news is None:
                working -= 1
            elif isinstance(news, ClientError):
                self._screen.away(news)
            else:
                self.tally.count(news.fate)
                self.tally.total = max(self.tally.total, self.tally.ended)  # some came while we worked
                self._screen.ended(news, self.tally)

    def _seal(self, batch: str) -> None:
        try:
            self._lacuna.move_batch(batch, "seal")
        except ProblemError as problem:
            if problem.code not in OVER:
                raise
        self._known.begin(self._lacuna.base_url, self._asked, None)

    def _ended(self, found: "Found | Unreadable") -> Ended:
        """What becomes of one file, however often the server is away."""
        if isinstance(found, Unreadable):
            return Ended(found.path, "failed", error=disk_error(found.error, Path(found.path)))
        anew = 0
        while True:
            try:
                return self._one(found, anew)
            except ClientError as error:
                known = isinstance(error, ProblemError) and anew < MOST_ANEW
                if known and error.code in GONE:
                    self._known.forget(found.path)
                    anew += 1
                elif known and error.code in CLOSED:  # and it was left
                    anew += 1
                elif isinstance(error, UnexpectedAnswer) and error.status not in PASSING:
                    self._give_up(error)
                elif isinstance(error, ServerUnreachable) or error.status in PASSING or error.code == RECEIVED:
                    self._wait(error)
                else:
                    return Ended(found.path, "failed", error=error)
            except OSError as error:
                told = disk_error(error, self.order.source / found.path)
                if error.errno not in FULL:
                    return Ended(found.path, "failed", error=told)
                self._pause(told)

    def _wait(self, error: ClientError) -> None:
        """For a server that will be there again; not for one that never was, and not for ever."""
        answered_at = self._lacuna.answered_at
        if answered_at is None or (isinstance(error, ServerUnreachable) and time.monotonic() - answered_at > PATIENCE_S):
            self._give_up(error)
        self._pause(error)

    def _pause(self, error: ClientError) -> None:
        """Say what is waited for, and wait a little."""
        self._news.put(error)
        if self._stopped.wait(PAUSE_S):
            raise Stopped

    def _leave_batch(self, batch: str, error: ClientError) -> None:
        """Go on in another one: it was sealed, or holds an older state of a file. But a user who canceled it wants no more."""
        with self._beginning:
            if self.batch != batch:
                return  # another thread left it just now
            if self._state(batch) == "canceled":
                self._give_up(error)
            self._seal(batch)
            self.batch = None

    def _give_up(self, error: ClientError) -> None:
        self._end = error
        self._stopped.set()
        raise Stopped from error

    def _needless(self, found: "Found") -> Fate | None:
        """Why nothing is to be done with a file: an earlier run did it, or something is in the way."""
        known = None if self._record is None else self._record.known(found.path, self._asked, found.stat)
        if known is not None and known.output is not None and self._is_there(found.path, known):
            return "kept"
        return "skipped" if os.path.lexists(self.order.out / self._place(found)) and not self.order.overwrite else None

    def _place(self, found: "Found") -> Path:
        """Where its output goes, as far as its name tells."""
        wanted, task = str(self.order.fields.get("format", "keep")), str(self.order.fields.get("task", "denoise"))
        return named_as(Path(found.path), asked_change(Path(found.path), wanted, task))

    def _one(self, found: "Found", anew: int) -> Ended:
        needless, place = self._needless(found), self._place(found)
        if needless is not None:
            return Ended(found.path, needless, self.order.out / place)
        known = self._known.known(found.path, self._asked, found.stat)
        job = self._lacuna.wait(known.job if known is not None else self._sent(found, anew), poll_s=POLL_S)
        if job["state"] != "succeeded":
            self._known.forget(found.path)
            return Ended(found.path, "failed", job=job, error=end_of(job))
        return self._fetched(found, place, job)

    def _is_there(self, path: str, known: Known) -> bool:
        """Whether its output is as this run's forerunner left it. What it was just about to be is compared by its bytes."""
        output = self.order.out / os.fsdecode(known.output or b"")
        try:
            stat = output.lstat()
        except OSError:
            return False
        if self.order.verify and known.source_sha256 != _sha256(self.order.source / path):
            return False
        if known.out_size is not None and not self.order.verify:
            return (stat.st_size, stat.st_mtime_ns) == (known.out_size, known.out_mtime_ns)
        if _sha256(output) != known.sha256:
            return False
        self._known.done(path, stat)
        return True

    def _sent(self, found: "Found", anew: int) -> str:
        """The id of its job: the same for the same file in the same batch, whatever was interrupted, but for those sent `anew`."""
        source = self.order.source / found.path
        mask, reference = (_beside(of, found.path, name) for of, name in ((self.order.mask, "mask"), (self.order.references, "reference")))
        place = os.fsencode(found.path).decode(errors="backslashreplace").replace(os.sep, "/")
        batch = self._batch()
        same = f"{batch}:{place}:{found.stat.st_size}:{found.stat.st_mtime_ns}:{self._asked}:{anew}"
        key = hashlib.sha256(same.encode()).hexdigest()
        try:
            job = self._lacuna.restore(source, mask=mask, reference=reference, batch=batch, place=place, key=key, **self.order.fields)
        except ProblemError as problem:
            if problem.code in CLOSED:
                self._leave_batch(batch, problem)
            raise
        now = source.stat()
        if (now.st_size, now.st_mtime_ns) != (found.stat.st_size, found.stat.st_mtime_ns):
            raise ClientError("file_changed", f"{found.path} changed while it was read", "Run the command again when nobody writes to it.")
        self._known.sent(found.path, self._asked, found.stat, job["id"], job["input"]["sha256"])
        return str(job["id"])

    def _batch(self) -> str:
        """The batch of this run: that of the last one, if it is still open, or a new one."""
        with self._beginning:
            if self.batch is None:
                before = self._known.batch(self._lacuna.base_url, self._asked)
                self.batch = before if before is not None and self._state(before) == "open" else None
            if self.batch is None:
                self.batch = str(self._lacuna.create_batch(self.order.fields.get("label"))["id"])
                self._known.begin(self._lacuna.base_url, self._asked, self.batch)
            return self.batch

    def _state(self, batch: str) -> str | None:
        """None: there is no such batch."""
        try:
            return str(self._lacuna.batch(batch)["state"])
        except ProblemError as problem:
            if problem.code != "batch_not_found":
                raise
            return None

    def _fetched(self, found: "Found", place: Path, job: Job) -> Ended:
        told = named_as(Path(found.path), told_change(job["input"]["format"], job["result"]["type"]))
        output = self.order.out / told
        if told != place and os.path.lexists(output) and not self.order.overwrite:
            return Ended(found.path, "skipped", output, job)
        taken_by = self._known.placing(found.path, told, job["result"]["sha256"])
        if taken_by is not None:
            raise ClientError("output_taken", f"{told} is the output of {taken_by}", "Restore one of them into another folder.")
        output.parent.mkdir(parents=True, exist_ok=True)
        self._lacuna.download(job, output, part=self._part(told))
        self._known.done(found.path, output.lstat())
        return Ended(found.path, "restored", output, job)

    def _part(self, output: Path) -> Path:
        """What an output is until it is whole: the same for the same output, of which only one run fetches one at a time."""
        return (self.order.out / output).with_name(f"{OURS}-{hashlib.sha256(os.fsencode(output)).hexdigest()[:32]}.part")


@dataclass(frozen=True)
class Found:
    """A picture, by the ending of its name: its path below the source."""

    path: str
    stat: os.stat_result


@dataclass(frozen=True)
class Unreadable:
    """A folder that cannot be looked into, or a file that cannot be looked at."""

    path: str
    error: OSError


def walk(source: Path, ignore: Callable[[str], None]) -> Iterator[Found | Unreadable]:
    """The pictures below `source`, as the disk lists them: no folder is held in memory. `ignore` hears of all else; links lead nowhere."""

    def below(folder: str) -> Iterator[Found | Unreadable]:
        try:
            scanned = os.scandir(source / folder)
        except OSError as error:
            yield Unreadable(folder, error)
            return
        with scanned:
            for entry in scanned:
                path = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        yield from below(path)
                    elif _is_picture(entry):
                        yield Found(path, entry.stat(follow_symlinks=False))
                    else:
                        ignore(path)
                except OSError as error:
                    yield Unreadable(path, error)

    yield from below("")


def _is_picture(entry: "os.DirEntry[str]") -> bool:
    """Whether its name says so. `._scan.jpg` is what macOS leaves beside pictures on foreign disks."""
    return entry.is_file(follow_symlinks=False) and not entry.name.startswith(("._", OURS)) and format_named(Path(entry.name)) is not None


def _check_places(source: Path, out: Path) -> None:
    """Raises `ClientError` where a run could not end well."""
    if not source.is_dir():
        raise ClientError("folder_not_found", f"There is no folder {source}", "Check its name; single files go through `lacuna restore`.")
    inner, outer = source.resolve(), out.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise ClientError("folders_overlap", "Input and output lie within each other", "Choose a place for the outputs beside the inputs.")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClientError("output_unusable", f"{out} cannot be written", f"The system says: {error.strerror or error}.") from error


def _beside(given: Path | None, path: str, name: str) -> Path | None:
    """The mask or reference of a picture: the one for all, or that with the same name, or with the same but for its ending."""
    if given is None or not given.is_dir():
        return given
    same = given / path
    if same.is_file():
        return same
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(same.parent), key=lambda entry: entry.name):
            if Path(entry.name).stem == same.stem and _is_picture(entry):
                return Path(entry.path)
    raise ClientError(f"{name}_missing", f"{given} holds no {name} for {path}", "Put it there under the same name.")


def _identity(path: Path | None) -> list[Any] | None:
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError as error:
        raise disk_error(error, path) from error
    return [str(path.resolve())] + ([] if path.is_dir() else [stat.st_size, stat.st_mtime_ns])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
