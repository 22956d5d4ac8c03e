"""Restores files: four at a time, each sent, waited for and fetched; one that fails does not stop the others."""

import contextlib
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from client.errors import ClientError, ServerUnreachable, Stopped
from client.http import Job, Lacuna
from client.outputs import Destination, asked_change, output_path, told_change

IN_FLIGHT = 4


@dataclass(frozen=True)
class Order:
    """What the user asked for."""

    files: Sequence[Path]
    destination: Destination
    task: str = "denoise"
    mask: Path | None = None
    reference: Path | None = None
    model: str | None = None
    format: str = "keep"
    quality: int | None = None
    strength: float | None = None
    speed: str = "normal"
    label: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """How it ended for one file: with an output, or with an error."""

    file: Path
    job: Job | None = None
    output: Path | None = None
    error: ClientError | None = None


class Screen(Protocol):
    """Shows the run to the user. Called from one thread only."""

    poll_s: int  # how often, in seconds, it wants to hear of progress

    def showing(self) -> AbstractContextManager[object]:
        """While this is open, the screen shows."""

    def changed(self, file: Path, job: Job | None) -> None:
        """The file is being sent (no job yet), or its job changed."""

    def finished(self, outcome: Outcome) -> None:
        """Nothing more happens to this file."""


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0: all done; 1: some failed; 3: the server was away or at fault."""
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if any(error.is_servers for error in errors):
        return 3
    return 1 if errors else 0


class Restoring:
    """One run over the files of an order."""

    def __init__(self, base_url: str, order: Order, screen: Screen, *, key: str | None = None) -> None:
        self.order = order
        self.screen = screen
        self.canceled: list[str] = []  # ids of the jobs that were canceled because the user stopped the run
        self._stopped = threading.Event()
        self._lacuna = Lacuna(base_url, key=key, stopped=self._stopped)
        self._under_way: dict[str, Path] = {}  # by the id of the job
        self._news: queue.SimpleQueue[tuple[Path, Job | None] | Future[Outcome]] = queue.SimpleQueue()
        self._unreachable: ServerUnreachable | None = None

    def run(self) -> list[Outcome]:
        """Does it all and answers with an outcome for each file. However it is left early, jobs under way are canceled."""
        with self._lacuna, ThreadPoolExecutor(IN_FLIGHT) as threads:
            try:
                for file, target, taken_by in self._targets():
                    threads.submit(self._outcome, file, target, taken_by).add_done_callback(self._news.put)
                return self._follow()
            finally:
                self._stopped.set()
                threads.shutdown(wait=False, cancel_futures=True)
                for job_id in list(self._under_way):
                    self._cancel(job_id)

    def _targets(self) -> list[tuple[Path, Path, Path | None]]:
        """Each file with its output, and the file before it that has the same output already."""
        first: dict[Path, Path] = {}
        targets = []
        for file in self.order.files:
            target = output_path(file, self.order.destination, asked_change(file, self.order.format, self.order.task))
            targets.append((file, target, first.get(target)))
            first.setdefault(target, file)
        return targets

    def _follow(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while len(outcomes) < len(self.order.files):
            news = self._news.get()
            if isinstance(news, Future):
                outcomes.append(news.result())
                self.screen.finished(outcomes[-1])
            else:
                self.screen.changed(*news)
        return outcomes

    def _outcome(self, file: Path, target: Path, taken_by: Path | None) -> Outcome:
        try:
            if taken_by is not None:
                raise _refusal("output_taken", f"{target} is the output of {taken_by}", "Restore it into another folder.")
            return self._restore(file, target)
        except ServerUnreachable as error:
            self._unreachable = error
            return Outcome(file, error=error)
        except ClientError as error:
            return Outcome(file, error=error)
        except OSError as error:
            return Outcome(file, error=disk_error(error, file))

    def _restore(self, file: Path, target: Path) -> Outcome:
        if self._stopped.is_set():
            raise Stopped
        if self._unreachable:
            raise self._unreachable
        self._check(file, target)
        self._news.put((file, None))
        order = self.order
        job = self._lacuna.restore(
            file, mask=order.mask, reference=order.reference, task=order.task, model=order.model, format=order.format,
            quality=order.quality, strength=order.strength, speed=order.speed, label=order.label,
        )  # fmt: skip
        job = self._end(job, file)
        if job["state"] != "succeeded":
            return Outcome(file, job, error=end_of(job))
        return Outcome(file, job, self._fetch(job, file, target))

    def _end(self, job: Job, file: Path) -> Job:
        """The job once it is final."""
        self._under_way[job["id"]] = file
        if self._stopped.is_set():  # it was while the picture was sent: `run` may have looked before we wrote the id down
            self._cancel(job["id"])
        try:
            return self._lacuna.wait(job["id"], lambda job: self._news.put((file, job)), poll_s=self.screen.poll_s)
        finally:
            if not self._stopped.is_set():  # else `run` still needs it, to cancel the job
                self._under_way.pop(job["id"], None)

    def _fetch(self, job: Job, file: Path, target: Path) -> Path:
        told = output_path(file, self.order.destination, told_change(job["input"]["format"], job["result"]["type"]))
        if told != target:
            self._check(file, told)
        told.parent.mkdir(parents=True, exist_ok=True)
        self._lacuna.download(job, told)
        return told

    def _check(self, file: Path, target: Path) -> None:
        """Refuses a folder as input and, unless the user said so, an output that exists."""
        if file.is_dir():
            raise _refusal("is_folder", "This is a folder", "Name the files in it.")
        if os.path.lexists(target) and not self.order.overwrite:
            raise _refusal(
                "output_exists", f"{target} exists already", "Add --overwrite to replace it, or choose another place with --out."
            )

    def _cancel(self, job_id: str) -> None:
        if self._under_way.pop(job_id, None) is None:
            return
        with contextlib.suppress(ClientError, Stopped):  # it has ended, or the server is away: there is no more we can do
            self._lacuna.cancel(job_id)
            self.canceled.append(job_id)


def end_of(job: Job) -> ClientError:
    """The error of a job that ended without succeeding."""
    if job["state"] == "canceled":
        return _refusal("canceled", "The job was canceled", "Run the command again if you want it after all.")
    error = job["error"]
    return ClientError(error["code"], error["title"], error["detail"])


def _refusal(code: str, title: str, detail: str) -> ClientError:
    return ClientError(code, title, detail)


def disk_error(error: OSError, file: Path) -> ClientError:
    """What the system says of a file, as a sentence."""
    name = error.filename if isinstance(error.filename, str) else str(error.filename or file)
    if isinstance(error, FileNotFoundError):
        return _refusal("file_not_found", "There is no such file" if name == str(file) else f"{name} does not exist", "Check its name.")
    return _refusal("file_unusable", f"{name} cannot be read or written", f"The system says: {error.strerror or error}.")
