"""`lacuna batches`: list, show, pause, resume, cancel, retry what failed, manifest."""

import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from client.cli.jobs import JobCommands, refuse_options
from client.cli.program import Choices, choices, main, tell

if TYPE_CHECKING:
    from client.http import Lacuna

batch_id = click.argument("batch_id", metavar="ID")


@main.group(invoke_without_command=True, cls=JobCommands, subcommand_metavar="[ID | COMMAND [ARGS]...]")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="List at most this many.")
@choices()
@click.pass_context
def batches(context: click.Context, /, limit: int) -> None:
    """List batches, newest first; with an ID, show that one."""
    if context.invoked_subcommand is not None:
        refuse_options(context, ("limit",), "is for the list of batches")
        return
    from client.listings import batch_table

    chosen = context.ensure_object(Choices)
    with _server(chosen) as lacuna:
        listed = lacuna.batches(limit=limit)
    tell(chosen, listed, lambda: batch_table(listed, datetime.now(UTC)), none="There are no batches.")


@batches.command(short_help="Show a batch, and what failed in it.")
@batch_id
@choices()
@click.pass_obj
def show(chosen: Choices, batch_id: str) -> None:
    """Show the batch ID: how many pictures came to what, and which failed, and why."""
    from client.listings import batch_lines

    with _server(chosen) as lacuna:
        batch = lacuna.batch(batch_id)
        failed = [] if chosen.as_json else list(lacuna.items(batch_id, state="failed"))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    tell(chosen, [batch], lambda: batch_lines(batch, failed, width))


@batches.command(short_help="Pause a batch.")
@batch_id
@choices()
@click.pass_obj
def pause(chosen: Choices, batch_id: str) -> None:
    """Pause the batch ID: what is in work ends, nothing else begins."""
    _move(chosen, batch_id, "pause")


@batches.command(short_help="Go on with a paused batch.")
@batch_id
@choices()
@click.pass_obj
def resume(chosen: Choices, batch_id: str) -> None:
    """Go on with the paused batch ID."""
    _move(chosen, batch_id, "resume")


@batches.command(short_help="Cancel a batch.")
@batch_id
@choices()
@click.pass_obj
def cancel(chosen: Choices, batch_id: str) -> None:
    """Cancel the batch ID and all of its pictures that have not ended; this is final."""
    _move(chosen, batch_id, "cancel")


@batches.command(short_help="Do again what failed in a batch.")
@batch_id
@choices()
@click.pass_obj
def retry(chosen: Choices, batch_id: str) -> None:
    """Restore again what failed in the batch ID."""
    _move(chosen, batch_id, "retry")


@batches.command(short_help="Print what became of each picture of a batch.")
@batch_id
@click.option("--format", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@choices()
@click.pass_obj
def manifest(chosen: Choices, batch_id: str, format: str) -> None:  # noqa: A002  the API's own word
    """Print what became of each picture of the batch ID: hashes, model, parameters, errors, figures."""
    with _server(chosen) as lacuna:
        for text in lacuna.manifest(batch_id, format):
            click.echo(text, nl=False)


def _move(chosen: Choices, batch_id: str, move: str) -> None:
    with _server(chosen) as lacuna:
        batch = lacuna.move_batch(batch_id, move)
    tell(chosen, [batch], lambda: [f"{batch['id']}  {batch['state']}"])


def _server(chosen: Choices) -> "Lacuna":
    from client.http import Lacuna

    return Lacuna(chosen.server, key=chosen.key)
