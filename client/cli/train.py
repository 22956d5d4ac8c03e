"""`lacuna train`: a model of one's own."""

import json
import math
from typing import Any

import click

from client.cli.program import Choices, choices, main, tell


class Setting(click.ParamType[tuple[str, Any]]):
    """`FIELD=VALUE`, as a pair; the value is JSON, or else a word."""

    name = "setting"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The field and its value."""
        field, equals, text = str(value).partition("=")
        if not equals or not field:
            self.fail(f"{value!r} sets nothing. Write it as FIELD=VALUE; docs/training.md lists the fields.", param, ctx)
        try:
            return field, json.loads(text, parse_constant=_no_number)
        except ValueError:
            return field, text


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


class Finite(click.FloatRange):
    """A number, neither infinite nor NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


@main.command(short_help="Train a model on a data set.")
@click.argument("name")
@click.argument("dataset", metavar="DATASET")
@click.option("--task", type=click.Choice(["denoise", "inpaint"]), default="denoise", show_default=True, help="What it learns.")
@click.option("--base", metavar="MODEL", help="Start from this model, not from nothing.")
@click.option("--minutes", type=Finite(0, min_open=True), help="How long; without it and --epochs an hour.")
@click.option("--epochs", type=click.IntRange(1), help="How many epochs, instead of minutes.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    type=Setting(),
    metavar="FIELD=VALUE",
    help="Any other field, as learning_rate=3e-4; again and again.",
)
@click.option("--label", help="A word to find the job by.")
@click.option("--watch", is_flag=True, help="Stay and watch how it learns; Ctrl-C leaves it running.")
@choices()
@click.pass_obj
def train(chosen: Choices, /, settings: tuple[tuple[str, Any], ...], watch: bool, **given: Any) -> None:
    """Train the model NAME on the data set DATASET, an id of `lacuna datasets`.

    It becomes the next version of NAME; when the job has succeeded it restores pictures: `lacuna restore --model NAME`.
    """
    from client.http import Lacuna
    from client.learning import follow
    from client.restoring import end_of

    order = {name: value for name, value in given.items() if value is not None} | dict(settings)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        job = lacuna.train(order)
        if not watch:
            tell(
                chosen,
                [job],
                lambda: [f"{job['model']} is trained as job {job['id']}. `lacuna jobs watch {job['id']}` shows how far it is."],
            )
            return
        if not chosen.as_json:
            click.echo(f"{job['model']}  job {job['id']}", err=True)
        ended = follow(lacuna, job["id"], as_json=chosen.as_json)
    if ended["state"] != "succeeded":
        raise end_of(ended)
