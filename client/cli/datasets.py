"""`lacuna datasets`: add a folder or a zip, list, show, report, delete."""

import functools
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.jobs import JobCommands, refuse_options
from client.cli.program import Choices, choices, main, tell

if TYPE_CHECKING:
    from client.http import Job, Lacuna
    from client.screens import Ingesting

KINDS = ("clean", "paired", "noisy")
SHOWN = 20  # pictures that are left out, after a set was added; `lacuna datasets report` shows all

dataset_id = click.argument("dataset_id", metavar="ID")
limit = click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="List at most this many.")


@main.group(invoke_without_command=True, cls=JobCommands, subcommand_metavar="[ID | COMMAND [ARGS]...]")
@limit
@choices()
@click.pass_context
def datasets(context: click.Context, /, limit: int) -> None:
    """List data sets, newest first; with an ID, show that one; add one, or delete it."""
    if context.invoked_subcommand is not None:
        refuse_options(context, ("limit",), "is for the list of data sets")
        return
    _list(context.ensure_object(Choices), limit)


@datasets.command("list", short_help="List data sets.")
@limit
@choices()
@click.pass_obj
def list_(chosen: Choices, limit: int) -> None:
    """List data sets, newest first."""
    _list(chosen, limit)


@datasets.command(short_help="Make a data set of a folder or a zip.")
@click.argument("source", metavar="FOLDER_OR_ZIP", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    required=True,
    help="What the pictures are: clean ones; paired, in two folders noisy and clean; or noisy ones only.",
)
@click.option("--in-place", is_flag=True, help="FOLDER is one of the server's machine, within its LACUNA_ROOTS: nothing is sent.")
@click.option("--label", help="Yours, to tell it from others.")
@choices()
@click.pass_obj
def add(chosen: Choices, source: Path, kind: str, label: str | None, *, in_place: bool) -> None:
    """Make a data set of the pictures in FOLDER_OR_ZIP, and wait until it is ready.

    Every picture is checked; those that cannot be used are named and left out. Ctrl-C leaves a set that was sent to the server.
    """
    from client.listings import dataset_line, skipped_line
    from client.restoring import end_of
    from client.screens import Ingesting

    screen = Ingesting(bar=sys.stdout.isatty() and not chosen.as_json)
    with _server(chosen) as lacuna:
        with screen:
            job = _sent(lacuna, source, screen, {"kind": kind, "label": label}, in_place=in_place)
            added = job["links"]["dataset"].rsplit("/", 1)[1]
            try:
                job = lacuna.wait(job["id"], screen.changed, poll_s=1)
            except KeyboardInterrupt:
                click.echo(f"The server goes on. Stop it: lacuna jobs cancel {job['id']}", err=True)
                raise
        dataset = lacuna.dataset(added)
        skipped = lacuna.report(added)["skipped"] if dataset["report"] and not chosen.as_json else []
    for item in skipped[:SHOWN]:
        click.echo(skipped_line(item), err=True)
    if skipped:
        click.echo(f"All that was found: lacuna datasets report {added}", err=True)
    if job["state"] != "succeeded":
        raise end_of(job)
    tell(chosen, [dataset], lambda: [dataset_line(dataset)])


@datasets.command(short_help="Show a data set.")
@dataset_id
@choices()
@click.pass_obj
def show(chosen: Choices, dataset_id: str) -> None:
    """Show all that matters about the data set ID."""
    from client.listings import dataset_lines

    with _server(chosen) as lacuna:
        dataset = lacuna.dataset(dataset_id)
    tell(chosen, [dataset], lambda: dataset_lines(dataset))


@datasets.command(short_help="Show what a data set was found to hold.")
@dataset_id
@choices()
@click.pass_obj
def report(chosen: Choices, dataset_id: str) -> None:
    """Show what the data set ID was found to hold: sizes, what is left out and why, copies, pictures that look alike."""
    from client.listings import report_lines

    with _server(chosen) as lacuna:
        found = lacuna.report(dataset_id)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    tell(chosen, [found], lambda: report_lines(found, width))


@datasets.command(short_help="Delete data sets and their files.")
@click.argument("dataset_ids", nargs=-1, required=True, metavar="ID...")
@choices()
@click.pass_obj
def delete(chosen: Choices, dataset_ids: Sequence[str]) -> None:
    """Delete the data sets ID. The pictures that they were made of stay where they are."""
    with _server(chosen) as lacuna:
        for each in dataset_ids:
            lacuna.delete_dataset(each)
            tell(chosen, [{"id": each, "deleted": True}], functools.partial(list, [f"{each}  deleted"]))


def _sent(lacuna: "Lacuna", source: Path, screen: "Ingesting", fields: dict[str, Any], *, in_place: bool) -> "Job":
    """The job that makes the set."""
    from client.http import Upload
    from client.text import counted, legible
    from client.zipping import pictures, zipped

    if in_place:
        return lacuna.add_dataset_in_place({"folder": str(source.absolute())} | {name: value for name, value in fields.items() if value})
    if not source.exists():
        raise click.UsageError(f"There is no {source}. A folder of the server's machine goes with --in-place.")
    if not source.is_dir():
        return lacuna.add_dataset(source.name, functools.partial(Upload, source), **fields)
    found = pictures(source)
    for one in found.unreadable:
        click.echo(f"{legible(one.path or str(source))}: cannot be read. The system says: {one.error.strerror or one.error}.", err=True)
    screen.sends(len(found.paths), found.bytes)
    if found.ignored:
        click.echo(f"{counted(found.ignored, 'other file')} ignored", err=True)
    return lacuna.add_dataset(f"{source.resolve().name}.zip", functools.partial(zipped, found, screen.sent), **fields)


def _list(chosen: Choices, limit: int) -> None:
    from client.listings import dataset_table

    with _server(chosen) as lacuna:
        listed = lacuna.datasets(limit=limit)
    tell(chosen, listed, lambda: dataset_table(listed, datetime.now(UTC)), none="There are no data sets.")


def _server(chosen: Choices) -> "Lacuna":
    from client.http import Lacuna

    return Lacuna(chosen.server, key=chosen.key)
