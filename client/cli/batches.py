"""`lacuna batches`: list, show, pause, resume, cancel, retry what failed, manifest; zips to the server, and back."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.folder import folder_screen
from client.cli.jobs import JobCommands, refuse_options
from client.cli.program import Choices, choices, main, tell
from client.cli.restore import picture_options

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


@batches.command(short_help="Fetch the results of a batch as a zip.")
@batch_id
@click.option("-o", "--out", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Without it: lacuna-ID.zip.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@choices()
@click.pass_obj
def archive(chosen: Choices, batch_id: str, out: Path | None, overwrite: bool) -> None:
    """Fetch the results of the batch ID that are there as a zip: each at the path of its picture, and a manifest of all."""
    out = _free(out or Path(f"lacuna-{Path(batch_id).name}.zip"), overwrite)
    with _server(chosen) as lacuna:
        batch = lacuna.batch(batch_id)
        _download(lacuna, batch_id, out)
    tell(chosen, [batch | {"output": str(out)}], lambda: [str(out)])


@batches.command("zip", short_help="Restore the pictures of a zip, and fetch them as one.")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "-o", "--out", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Without it: NAME.restored.zip beside it."
)
@click.option("--pattern", metavar="PATTERN", help="Only paths in the zip that fit it: '*.tif', '1920s/*'.")
@picture_options
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@choices()
@click.pass_obj
def restore_zip(chosen: Choices, /, source: Path, out: Path | None, overwrite: bool, **fields: Any) -> None:
    """Restore the pictures in the zip FILE, and write them to the same paths of another zip.

    Ctrl-C leaves the batch to the server; `lacuna batches archive` fetches what it made.
    """
    from client import in_place
    from client.screens import summary

    out, screen = _free(out or source.with_name(f"{source.stem}.restored.zip"), overwrite), folder_screen(as_json=chosen.as_json)
    with _server(chosen) as lacuna:
        started = lacuna.send_archive(source, **fields)
        try:
            with screen.showing():
                batch = in_place.follow(lacuna, started["id"], screen)
        except KeyboardInterrupt:
            click.echo(f"The server goes on. Stop it: lacuna batches cancel {started['id']}", err=True)
            raise
        if batch["state"] in ("failed", "canceled"):
            raise in_place.ended_early(lacuna, batch)
        if batch["counts"]["succeeded"]:
            _download(lacuna, batch["id"], out)
    tally = in_place.tally_of(batch)
    fetched = [f"{source} -> {out}"] if batch["counts"]["succeeded"] else []
    tell(chosen, [batch], lambda: [*fetched, summary(tally)])
    click.echo(f"What became of each: lacuna batches manifest {batch['id']}", err=True)
    sys.exit(1 if tally.failed else 0)


def _free(out: Path, overwrite: bool) -> Path:
    if out.exists() and not overwrite:
        raise click.UsageError(f"{out} exists. Choose another --out, or replace it with --overwrite.")
    return out


def _download(lacuna: "Lacuna", batch_id: str, out: Path) -> None:
    from client.restoring import disk_error

    try:
        lacuna.download_archive(batch_id, out)
    except OSError as error:
        raise disk_error(error, out) from error


def _move(chosen: Choices, batch_id: str, move: str) -> None:
    with _server(chosen) as lacuna:
        batch = lacuna.move_batch(batch_id, move)
    tell(chosen, [batch], lambda: [f"{batch['id']}  {batch['state']}"])


def _server(chosen: Choices) -> "Lacuna":
    from client.http import Lacuna

    return Lacuna(chosen.server, key=chosen.key)
