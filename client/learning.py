"""Watching a training: a bar, a curve and the epochs on a terminal, a line or an object for each epoch in a pipe."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import click

from client.http import FINAL, Job, Lacuna
from client.listings import change_line
from client.measured import measured_lines
from client.text import duration, table

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = dict[str, Any]
POLL_S = 2
CURVE_LINES, CURVE_COLUMNS = 8, 64
EIGHTHS = " ▁▂▃▄▅▆▇█"
LATEST = 5  # epochs that are shown in figures


class Screen(Protocol):
    """What the user sees."""

    def changed(self, job: Job, epochs: Sequence[Row]) -> None:
        """What is known now; `epochs` are all so far."""
        ...


def watch(lacuna: Lacuna, job_id: str, screen: Screen) -> Job:
    """Show a training until it has ended, and answer with it."""

    def look(job: Job) -> None:
        screen.changed(job, list(epochs_of(lacuna.metrics(job_id))))

    return lacuna.wait(job_id, look, poll_s=POLL_S)


def epochs_of(rows: Sequence[Row]) -> Iterator[Row]:
    """The epochs of a training, each with `loss` of what was learnt from, and the figures of what was held out."""
    split = [row for row in rows if row["split"]]
    for epoch, found in groupby(split, key=lambda row: row["epoch"]):
        by = {row["split"]: row for row in found}
        held_out = by.get("validation", {})
        yield {
            "epoch": epoch,
            "loss": by.get("train", {}).get("loss"),
            **{name: held_out.get(name) for name in ("psnr", "ssim", "mse", "rmse", "mae")},
            "held_out_loss": held_out.get("loss"),
            "seconds": sum(row["seconds"] or 0 for row in by.values()),
        }


class Lines:
    """A line, or a JSON object, for each epoch."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._told = 0

    def changed(self, job: Job, epochs: Sequence[Row]) -> None:
        """Tell of the epochs that are new."""
        for epoch in epochs[self._told :]:
            click.echo(json.dumps(epoch) if self._as_json else epoch_line(epoch))
        self._told = len(epochs)


class Curve:
    """A picture that keeps up."""

    def __init__(self, update: Callable[["RenderableType"], object]) -> None:
        self._update = update

    def changed(self, job: Job, epochs: Sequence[Row]) -> None:
        """Draw it anew."""
        from rich.text import Text

        self._update(Text("\n".join(learning_lines(job, epochs)), no_wrap=True, overflow="crop"))


def learning_lines(job: Job, epochs: Sequence[Row]) -> list[str]:
    """How far a training is, how its PSNR of held-out pictures rose, and its latest epochs."""
    progress = job["progress"]
    stands = [f"{job['model']}  {job['state']}"]
    if progress["total"]:
        stands.append(f"step {progress['done']} of {progress['total']}")
    if job["eta_s"] is not None:
        stands.append(f"about {duration(job['eta_s'])}")
    if not epochs:
        return ["  ".join(stands)]
    measured = [epoch["psnr"] for epoch in epochs if epoch["psnr"] is not None]
    drawn = curve(measured, "dB") if len(measured) > 1 else curve([epoch["loss"] for epoch in epochs], "loss") if len(epochs) > 1 else []
    return ["  ".join(stands), "", *drawn, *([""] if drawn else []), *epoch_table(epochs[-LATEST:])]


def curve(values: Sequence[float], unit: str) -> list[str]:
    """A curve of blocks, `CURVE_LINES` high, its ends told at the left; of many values each column is the mean of its share."""
    count = min(len(values), CURVE_COLUMNS)
    shares = [values[len(values) * index // count : len(values) * (index + 1) // count] for index in range(count)]
    means = [sum(share) / len(share) for share in shares]
    low, high = min(means), max(means)
    heights = [round((mean - low) / ((high - low) or 1) * (8 * CURVE_LINES - 1)) + 1 for mean in means]
    ends = {
        0: f"{high:.2f} {unit}" if unit == "dB" else f"{high:.4f}",
        CURVE_LINES - 1: f"{low:.2f} {unit}" if unit == "dB" else f"{low:.4f}",
    }
    lines = []
    for line in range(CURVE_LINES):
        filled = 8 * (CURVE_LINES - 1 - line)
        lines.append(f"{ends.get(line, ''):>9} │" + "".join(EIGHTHS[min(8, max(0, height - filled))] for height in heights))
    return lines


def epoch_table(epochs: Sequence[Row]) -> list[str]:
    """A line for each epoch under a line of headings."""
    rows = [
        (str(epoch["epoch"]), _told(epoch["loss"], "{:.5f}"), _told(epoch["psnr"], "{:.2f} dB"), _told(epoch["ssim"], "{:.4f}"),
         duration(epoch["seconds"]))
        for epoch in epochs
    ]  # fmt: skip
    return table(("EPOCH", "LOSS", "PSNR", "SSIM", "TOOK"), rows, right=frozenset({"EPOCH", "LOSS", "PSNR", "SSIM", "TOOK"}))


def epoch_line(epoch: Row) -> str:
    """One epoch, for a pipe."""
    held_out = "" if epoch["psnr"] is None else f"  held out {epoch['psnr']:.2f} dB, SSIM {epoch['ssim']:.4f}"
    return f"epoch {epoch['epoch']}  loss {_told(epoch['loss'], '{:.5f}')}{held_out}  {duration(epoch['seconds'])}"


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def follow(lacuna: Lacuna, job_id: str, *, as_json: bool) -> Job:
    """Watch on whatever this is: a terminal, a pipe, a program."""
    if as_json or not sys.stdout.isatty():
        job = watch(lacuna, job_id, Lines(as_json=as_json))
    else:
        from rich.live import Live

        with Live(auto_refresh=False, vertical_overflow="crop") as live:
            job = watch(lacuna, job_id, Curve(lambda drawn: live.update(drawn, refresh=True)))
            live.update(_last(lacuna, job), refresh=True)
    if job["state"] in FINAL and not as_json:
        click.echo(change_line(job))
        for line in measured_lines(lacuna.metrics(job_id)):
            click.echo(line)
    return job


def _last(lacuna: Lacuna, job: Job) -> "RenderableType":
    from rich.text import Text

    return Text("\n".join(learning_lines(job, list(epochs_of(lacuna.metrics(job["id"]))))), no_wrap=True, overflow="crop")
