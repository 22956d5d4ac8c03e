"""`lacuna evaluate`, and `lacuna models compare`: how good models are on a data set."""

import sys
from typing import Any

import click

from client.cli.models import models
from client.cli.program import Choices, Command, choices, main, tell
from client.cli.train import Finite


def what_is_measured(command: Command) -> Command:
    """The options of both commands."""
    for option in (
        click.option("--label", help="A word to find the job by."),
        click.option("--masks", "masks", multiple=True, metavar="KIND", help="Of --task inpaint: a kind of holes; again and again."),
        click.option(
            "--sigma",
            "sigmas",
            multiple=True,
            type=Finite(0, 255),
            help="A level of noise; again and again. By default 15, 25 and 50.",
        ),
        click.option("--task", type=click.Choice(["denoise", "inpaint"]), default="denoise", show_default=True, help="What they do."),
        click.option("--dataset", required=True, metavar="ID", help="The data set, of `lacuna datasets`."),
    ):  # fmt: skip
        command = option(command)
    return command


@main.command(short_help="Measure models on a data set.")
@click.argument("measured", nargs=-1, required=True, metavar="MODEL...")
@what_is_measured
@choices()
@click.pass_obj
def evaluate(chosen: Choices, /, measured: tuple[str, ...], **given: Any) -> None:
    """Measure models on a data set, beside the untouched pictures and a classical method, and wait for the figures."""
    _measure(chosen, measured, given)


@models.command(short_help="Measure two models beside each other.")
@click.argument("first")
@click.argument("second")
@what_is_measured
@choices()
@click.pass_obj
def compare(chosen: Choices, /, first: str, second: str, **given: Any) -> None:
    """Measure the models FIRST and SECOND on a data set, beside the untouched pictures and a classical method."""
    _measure(chosen, (first, second), given)


def _measure(chosen: Choices, measured: tuple[str, ...], given: dict[str, Any]) -> None:
    from client.http import Lacuna
    from client.measured import measured_lines
    from client.restoring import end_of

    order = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value not in (None, ())}
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        job = lacuna.evaluate(order | {"models": list(measured)})
        if not chosen.as_json and sys.stderr.isatty():
            click.echo(f"job {job['id']}", err=True)
        ended = lacuna.wait(job["id"])
        if ended["state"] != "succeeded":
            raise end_of(ended)
        rows = lacuna.metrics(job["id"])
    tell(chosen, rows, lambda: measured_lines(rows), none="Nothing could be measured.")
