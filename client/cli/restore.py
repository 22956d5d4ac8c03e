"""`lacuna restore`: pictures through the server, and back."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.program import Choices, Command, choices, main
from client.errors import ServerUnreachable
from client.outputs import Destination, asked_change, destination_of, format_named

if TYPE_CHECKING:
    from client.restoring import Outcome, Screen


def picture_options(command: Command) -> Command:
    """The options that say what is done with a picture."""
    for option in reversed((
        click.option("--task", default="denoise", show_default=True, help="What to do: denoise, or inpaint what --mask marks."),
        click.option("--model", metavar="NAME", help="A model of `lacuna models`, as NAME or NAME@VERSION. Without it: the task's own."),
        click.option(
    "--format",
    type=click.Choice(["keep", "png", "jpeg", "tiff", "webp", "bmp"]),
    default="keep",
    show_default=True,
    help="Format of the output.",
),
        click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Of a JPEG or WebP output. Without it: as good as the input, and a WebP without loss if it came so.",
),
        click.option(
    "--strength",
    type=click.FloatRange(0, 1, min_open=True),
    help="Of denoising: 0.5 goes half the way from the noisy picture to the clean one. Without it: all the way.",
),
        click.option(
    "--speed",
    type=click.Choice(["normal", "best"]),
    default="normal",
    show_default=True,
    help="best: a little better, in eight times the time.",
),
        click.option("--label", help="A word to find the jobs by."),
    )):  # fmt: skip
        command = option(command)
    return command


@main.command(short_help="Restore pictures, four at a time.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False), metavar="FILES...")
@click.option(
    "-o", "--out", metavar="PLACE", help="A folder, where names are kept, or a file. Without it: beside each picture, as NAME.restored.jpg."
)
@click.option("--mask", metavar="PICTURE", type=click.Path(path_type=Path), help="Of the same size: what is not black in it is filled.")
@click.option(
    "--reference", metavar="PICTURE", type=click.Path(path_type=Path), help="The picture undamaged: tells by how many dB it got better."
)
@picture_options
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@choices()
@click.pass_obj
def restore(chosen: Choices, /, files: tuple[Path, ...], out: str | None, **order: Any) -> None:
    """Restore FILES, four at a time. One that fails does not stop the others; Ctrl-C cancels those under way."""
    from client.restoring import Order, Restoring, exit_status

    if order["reference"] and len(files) > 1:
        raise click.UsageError("--reference is compared with one picture. Restore the others by themselves.")
    screen = _screen(len(files), as_json=chosen.as_json)
    restoring = Restoring(
        chosen.server, Order(files, _destination(files, out, order["format"], order["task"]), **order), screen, key=chosen.key
    )
    try:
        with screen.showing():
            outcomes = restoring.run()
    except KeyboardInterrupt:
        count = len(restoring.canceled)
        click.echo(f"Stopped. {count} {'job' if count == 1 else 'jobs'} under way canceled.", err=True)
        raise
    _sum_up(outcomes)
    sys.exit(exit_status(outcomes))


def _destination(files: Sequence[Path], out: str | None, wanted: str, task: str) -> Destination:
    """What `--out` means. A usage error if it cannot be meant, or would give a file the ending of another format."""
    try:
        destination = destination_of(out, pictures=len(files))
    except NotADirectoryError:
        raise click.UsageError(f"{out} is a file; several pictures need a folder. Name one with --out.") from None
    if destination.file:
        promised = format_named(destination.file)
        expected = asked_change(files[0], wanted, task) or format_named(files[0])
        if promised and expected and promised != expected:
            raise click.UsageError(f"{out} would hold {expected.upper()}. Give it that ending, or choose another --format.")
    return destination


def _screen(files: int, *, as_json: bool) -> "Screen":
    from client.screens import Bars, JsonLines, Lines

    if as_json:
        return JsonLines()
    return Bars(files) if sys.stdout.isatty() else Lines()


def _sum_up(outcomes: Sequence["Outcome"]) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if away := next((error for error in errors if isinstance(error, ServerUnreachable)), None):
        click.echo(str(away), err=True)
    if errors and len(outcomes) > 1:
        click.echo(f"{len(errors)} of {len(outcomes)} files failed.", err=True)
