"""Watching jobs: a table that keeps up on a terminal, a line or an object for each change in a pipe."""

import json
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client.http import FINAL, Job, Lacuna
from client.listings import change_line, job_table, name_width
from client.screens import Bars

if TYPE_CHECKING:
    from rich.text import Text

REFRESH_S = 1.0
STYLES = {"queued": "dim", "running": "cyan", "succeeded": "default", "failed": "red", "canceled": "dim"}


class Changes:
    """A line, or a JSON object, for each change."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def all(self, lacuna: Lacuna, filters: Mapping[str, str]) -> None:
        """Tells of all jobs that match, without end."""
        for job in lacuna.follow():
            if all(value in _values(job, name) for name, value in filters.items()):
                self._say(job)

    def one(self, lacuna: Lacuna, job_id: str) -> Job:
        """Tells of one job until it has ended, and answers with it."""
        for job in lacuna.follow(job_id):
            self._say(job)
            if job["state"] in FINAL:
                return job
        raise AssertionError("following does not end")

    def _say(self, job: Job) -> None:
        click.echo(json.dumps(job) if self._as_json else change_line(job))


class Board:
    """A table of the newest jobs, as many as the terminal has lines; or one bar."""

    def all(self, lacuna: Lacuna, filters: Mapping[str, str]) -> None:
        """Shows all jobs that match, until the user stops it."""
        from rich.live import Live

        with Live(auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                size = shutil.get_terminal_size()
                jobs = lacuna.jobs(limit=max(1, size.lines - 2), **filters)
                live.update(_colored(jobs, name_width(size.columns)), refresh=True)
                time.sleep(REFRESH_S)

    def one(self, lacuna: Lacuna, job_id: str) -> Job:
        """Shows one job until it has ended, and answers with it."""
        job = lacuna.job(job_id)
        name = Path(job["input"]["name"])
        bars = Bars()
        with bars.showing():
            bars.changed(name, job)
            job = lacuna.wait(job_id, lambda job: bars.changed(name, job), poll_s=bars.poll_s)
        if job["state"] == "succeeded":
            click.echo(change_line(job))
        return job


def _values(job: Job, name: str) -> list[str]:
    """What a filter of that name may be, so that it chooses this job: a model's version, or its name alone, that is all versions."""
    return [job[name], job[name].partition("@")[0]] if name == "model" else [job[name]]


def _colored(jobs: list[Job], longest_name: int) -> "Text":
    from rich.text import Text

    if not jobs:
        return Text("There are no such jobs yet.", style="dim")
    headings, *lines = job_table(jobs, datetime.now(UTC), longest_name)
    text = Text(headings, style="bold", no_wrap=True, overflow="crop", end="")
    for job, line in zip(jobs, lines, strict=True):
        text.append(f"\n{line}", style=f"not bold {STYLES[job['state']]}")
    return text
