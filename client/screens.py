"""What the user sees while files are restored: bars on a terminal, lines in a pipe, JSON for programs.

In a pipe, lines that tell of results go to stdout, those that tell of errors to stderr. An unreachable server is told once for all
files, by the command.
"""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.errors import ClientError, ServerUnreachable
from client.folder import Ended, Tally
from client.http import Job
from client.restoring import Outcome
from client.text import amount, counted, duration, gain, legible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

IN_THE_WAY = "skipped, as their outputs exist"
STANDS_S = 60.0  # between lines that say where a run stands


class Lines:
    """One plain line for each finished file."""

    poll_s = 20

    def showing(self) -> AbstractContextManager[object]:
        """While this is open, the screen shows."""
        return nullcontext()

    def changed(self, file: Path, job: Job | None) -> None:
        """Says nothing: a pipe hears of ends only."""

    def finished(self, outcome: Outcome) -> None:
        """Says how it ended."""
        if outcome.error is None:
            click.echo(done_line(outcome))
        elif not isinstance(outcome.error, ServerUnreachable):
            click.echo(error_line(outcome.file, outcome.error), err=True)


class JsonLines(Lines):
    """One JSON object a line for each finished file: the job with `file` and `output`, or `file` and `error`."""

    def finished(self, outcome: Outcome) -> None:
        """Says how it ended."""
        told: dict[str, Any] = {"file": str(outcome.file)}
        if outcome.error:
            told |= {"job": outcome.job["id"] if outcome.job else None, "error": outcome.error.as_json()}
        else:
            told |= (outcome.job or {}) | {"output": str(outcome.output)}
        click.echo(json.dumps(told))


class Bars:
    """A bar for each file under way, below them one for all, and a line above them for each that is finished."""

    poll_s = 1

    def __init__(self, files: int = 1) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        name = TextColumn("{task.fields[name]}", markup=False)
        status = TextColumn("{task.description}", markup=False, style="dim")
        self._progress: Progress = Progress(
            name, BarColumn(24, complete_style="cyan", finished_style="cyan", pulse_style="dim"), status, transient=True
        )
        self._tasks: dict[Path, TaskID] = {}
        self._began = time.monotonic()
        self._files = files
        self._finished = 0
        self._all: TaskID | None = None
        self._left_s: dict[Path, float] = {}  # of those under way, as their jobs say
        self._move_all()

    def showing(self) -> AbstractContextManager[object]:
        """While this is open, the screen shows."""
        return self._progress

    def changed(self, file: Path, job: Job | None) -> None:
        """Moves the file's bar."""
        self._left_s[file] = (job and job.get("eta_s")) or 0.0
        progress = (job and job["progress"]) or {"done": 0, "total": None}
        if file not in self._tasks:
            self._tasks[file] = self._progress.add_task("", name=legible(file.name, 32))
            self._move_all()
        self._progress.update(self._tasks[file], description=status_of(job), completed=progress["done"], total=progress["total"])

    def finished(self, outcome: Outcome) -> None:
        """Takes the file's bar away and says how it ended."""
        if outcome.file in self._tasks:
            self._progress.remove_task(self._tasks.pop(outcome.file))
        self._left_s.pop(outcome.file, None)
        self._finished += 1
        self._move_all()
        if outcome.error is None:
            self._say(done_line(outcome), "default")
        elif not isinstance(outcome.error, ServerUnreachable):
            self._say(error_line(outcome.file, outcome.error), "red")

    def _move_all(self) -> None:
        """The bar of all files, in the last place; only where there are several."""
        if self._files == 1:
            return
        if self._all is not None:
            self._progress.remove_task(self._all)
        status = f"{self._finished} of {self._files} files"
        if self._finished:
            left_s = (time.monotonic() - self._began) / self._finished * (self._files - self._finished)
            left_s = max(left_s, *self._left_s.values(), 0.0)
            status += f", about {duration(left_s)}"
        self._all = self._progress.add_task(status, name="all", completed=self._finished, total=self._files)

    def _say(self, line: str, style: str) -> None:
        self._progress.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class FolderLines:
    """One plain line for each file that was restored or failed; once a minute where the run stands, or what it waits for."""

    _told_away = -STANDS_S
    _told = -STANDS_S

    def showing(self) -> AbstractContextManager[object]:
        """While this is open, the screen shows."""
        return nullcontext()

    def began(self, tally: Tally) -> None:
        """Says how many there are."""
        click.echo(f"{counted(tally.total, 'picture')}; {counted(tally.ignored, 'other file')} ignored", err=True)
        self._began = self._told = time.monotonic()

    def ended(self, ended: Ended, tally: Tally) -> None:
        """Says how it ended."""
        if ended.error is not None:
            click.echo(f"{legible(ended.path)}: {legible(str(ended.error))}", err=True)
        elif ended.fate == "restored":
            click.echo(f"{legible(ended.path)} -> {legible(str(ended.output))}")
        if time.monotonic() - self._told >= STANDS_S:
            self._told = time.monotonic()
            click.echo(stands(tally, *paced(tally, time.monotonic() - self._began)), err=True)

    def moved(self, tally: Tally, rate_per_s: float | None, left_s: float | None) -> None:
        """Says once a minute where a run stands that is the server's."""
        if time.monotonic() - self._told >= STANDS_S:
            self._told = time.monotonic()
            click.echo(stands(tally, rate_per_s, left_s), err=True)

    def held_up(self, reason: str) -> None:
        """Says why nothing happens."""
        if time.monotonic() - self._told_away >= STANDS_S:
            self._told_away = time.monotonic()
            click.echo(f"Paused: {legible(reason)}.", err=True)

    def away(self, error: ClientError) -> None:
        """Says what is waited for."""
        if time.monotonic() - self._told_away >= STANDS_S:
            self._told_away = time.monotonic()
            click.echo(f"Waiting. {legible(str(error))}", err=True)


class FolderJson(FolderLines):
    """One JSON object a line for each file."""

    def began(self, tally: Tally) -> None:
        """Says nothing."""

    def ended(self, ended: Ended, tally: Tally) -> None:
        """Says how it ended."""
        told: dict[str, Any] = {"path": ended.path, "fate": ended.fate, "output": ended.output and str(ended.output)}
        told |= {"job": ended.job and ended.job["id"], "error": ended.error and ended.error.as_json()}
        click.echo(json.dumps(told))


class FolderBar:
    """One bar for the whole folder, and above it a line for each file that failed."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        status = TextColumn("{task.description}", markup=False, style="dim")
        self._progress: Progress = Progress(BarColumn(32, complete_style="cyan", finished_style="cyan", pulse_style="dim"), status)
        self._task = self._progress.add_task("looking", total=None)
        self._began = time.monotonic()

    def showing(self) -> AbstractContextManager[object]:
        """While this is open, the screen shows."""
        return self._progress

    def began(self, tally: Tally) -> None:
        """Knows how long the bar is."""
        self._began = time.monotonic()
        self._move(tally)

    def ended(self, ended: Ended, tally: Tally) -> None:
        """Moves the bar; says what failed."""
        if ended.error is not None:
            line = f"{legible(ended.path)}: {legible(str(ended.error))}"
            self._progress.console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        self._move(tally)

    def moved(self, tally: Tally, rate_per_s: float | None, left_s: float | None) -> None:
        """Moves the bar of a run that is the server's."""
        self._show(tally, stands(tally, rate_per_s, left_s))

    def held_up(self, reason: str) -> None:
        """Says why nothing happens."""
        self._progress.update(self._task, description=f"paused: {legible(reason)}")

    def away(self, error: ClientError) -> None:
        """Says what is waited for."""
        self._progress.update(self._task, description=f"waiting: {legible(error.title)}")

    def _move(self, tally: Tally) -> None:
        self._show(tally, stands(tally, *paced(tally, time.monotonic() - self._began)))

    def _show(self, tally: Tally, description: str) -> None:
        self._progress.update(self._task, completed=tally.ended, total=tally.total or 1, description=description)


class Ingesting:
    """How far a data set is: a bar on a terminal, in a pipe a line for each stage."""

    def __init__(self, *, bar: bool) -> None:
        self._shown: Progress | None = None
        self._bytes: int | None = None
        self._checking = False
        if bar:
            from rich import progress

            status = progress.TextColumn("{task.description}", markup=False, style="dim")
            column = progress.BarColumn(32, complete_style="cyan", finished_style="cyan", pulse_style="dim")
            self._shown = progress.Progress(column, status, transient=True)
            self._task = self._shown.add_task("sending", total=None)

    def __enter__(self) -> "Ingesting":
        if self._shown is not None:
            self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def sends(self, pictures: int, size: int) -> None:
        """Says how much goes."""
        self._bytes = size
        if self._shown is None:
            click.echo(f"Sending {counted(pictures, 'picture')}, {amount(size)}", err=True)

    def sent(self, size: int) -> None:
        """Moves the bar of what has gone."""
        if self._shown is not None:
            of = f" of {amount(self._bytes)}" if self._bytes else ""
            self._shown.update(self._task, completed=size, total=self._bytes, description=f"sending, {amount(size)}{of}")

    def changed(self, job: Job) -> None:
        """Moves the bar of what was checked."""
        done, total = job["progress"]["done"], job["progress"]["total"]
        if self._shown is not None:
            status = {"queued": "waiting", "running": "looking"}.get(job["state"], "done")
            status = f"checking, {done} of {total}" if job["state"] == "running" and done else status
            self._shown.update(self._task, completed=done, total=total if done else None, description=status)
        elif not self._checking and job["state"] == "running":
            self._checking = True
            click.echo("Checking every picture", err=True)


def stands(tally: Tally, rate_per_s: float | None, left_s: float | None) -> str:
    """`412 of 500, 3 failed, 2.1 a second, about 42 s`."""
    parts = [f"{tally.ended} of {tally.total}"] + ([f"{tally.failed} failed"] if tally.failed else [])
    if rate_per_s and left_s:
        parts += [f"{rate_per_s:.2g} a second", f"about {duration(left_s)}"]
    return ", ".join(parts)


def paced(tally: Tally, seconds: float) -> tuple[float | None, float | None]:
    """How many files a second a run did, and how long the rest of them takes at that rate."""
    worked = tally.restored + tally.failed  # what was there already took no time
    rate = worked / seconds if seconds > 0 else 0
    return (rate, (tally.total - tally.ended) / rate) if rate else (None, None)


def survey_lines(job: Job) -> list[str]:
    """What a dry run found."""
    found = job["result"]
    size = f"{found['pixels'] / 1e6:.1f} Mpx in {amount(found['bytes'])}"
    lines = [f"{counted(found['pictures'], 'picture')} to restore: {size}; {amount(found['free'])} are free for the outputs"]
    in_the_way = found["skipped"] - found["done_before"]
    others = {"done before": found["done_before"], IN_THE_WAY: in_the_way, "cannot be restored": found["failed"]}
    lines += [f"{count} {what}" for what, count in others.items() if count]
    lines += [f"{counted(found['ignored'], 'other file')} ignored"] if found["ignored"] else []
    took = found["restoring_s"]
    if not found["pictures"]:
        return ["Nothing to restore", *lines[1:]]
    return [
        *lines,
        "How long it takes is unknown until the model has run once" if took is None else f"About {duration(took)} with one worker",
    ]


def sent_survey_lines(tally: Tally, size: int) -> list[str]:
    """What a dry run found of a folder that would be sent."""
    others = {"done before": tally.kept, IN_THE_WAY: tally.skipped, "cannot be read": tally.failed}
    lines = [f"{counted(tally.total - tally.ended, 'picture')} to send: {amount(size)}"]
    lines += [f"{count} {what}" for what, count in others.items() if count]
    return lines + ([f"{counted(tally.ignored, 'other file')} ignored"] if tally.ignored else [])


def failed_line(item: dict[str, Any]) -> str:
    """`album/torn.png: The picture is cut off. Copy it again.`, of an item of a batch."""
    why = f"{item['error']['title']}. {item['error']['detail']}"
    return f"{legible(item['path'])}: {legible(why)}"


def summary(tally: Tally) -> str:
    """`500 pictures: 478 restored, 2 failed, 20 done before.`."""
    told = {"restored": tally.restored, "done before": tally.kept, IN_THE_WAY: tally.skipped, "failed": tally.failed}
    parts = [f"{count} {what}" for what, count in told.items() if count]
    ignored = f" {counted(tally.ignored, 'other file')} ignored." if tally.ignored else ""
    return f"{counted(tally.total, 'picture')}: {', '.join(parts) or 'nothing to do'}.{ignored}"


def done_line(outcome: Outcome) -> str:
    """`scan.jpg -> scan.restored.jpg`; with a reference also how much better it became."""
    metrics = outcome.job and outcome.job.get("metrics")
    return f"{legible(str(outcome.file))} -> {legible(str(outcome.output))}{f' ({gain(metrics)})' if metrics else ''}"


def error_line(file: Path, error: ClientError) -> str:
    """`scan.jpg: The picture is cut off. Copy it again.`."""
    return f"{legible(str(file))}: {legible(str(error))}"


def status_of(job: Job | None) -> str:
    """Where a file stands, in a few words."""
    if job is None:
        return "sending"
    if job["state"] == "queued":
        return f"waiting, {job['position']} before it" if job.get("position") else "waiting"
    if job["state"] == "succeeded":
        return "fetching"
    progress = job["progress"]
    steps = f"{progress['done']} of {progress['total']} {progress['unit']}" if progress and progress["total"] > 1 else job["state"]
    return steps if job.get("eta_s") is None else f"{steps}, about {duration(job['eta_s'])}"
