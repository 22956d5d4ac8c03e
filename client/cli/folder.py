"""`lacuna folder`: a whole tree through the server, and back."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.program import Choices, choices, main
from client.cli.restore import picture_options

if TYPE_CHECKING:
    from client.screens import FolderBar, FolderLines


@main.command(short_help="Restore all pictures of a folder.")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--mask", metavar="PLACE", type=click.Path(path_type=Path), help="With --task inpaint: one for all, or a folder of masks by name."
)
@click.option(
    "--references", metavar="FOLDER", type=click.Path(path_type=Path), help="The same pictures undamaged, by name, to compare with."
)
@picture_options
@click.option("--overwrite", is_flag=True, help="Replace files that are in the way. Without it they stay, and their pictures are skipped.")
@choices()
@click.pass_obj
def folder(chosen: Choices, /, source: Path, out: Path, mask: Path | None, references: Path | None, overwrite: bool, **fields: Any) -> None:
    """Restore all pictures below IN to the same places below OUT.

    Run it again after whatever stopped it: it goes on where it was. What is done and unchanged is not sent again. A picture that fails
    does not stop the others; links are not followed.
    """
    from client.folder import FolderOrder, FolderRun
    from client.screens import summary

    given = {name: value for name, value in fields.items() if value is not None}
    screen = _screen(as_json=chosen.as_json)
    run = FolderRun(chosen.server, FolderOrder(source, out, mask, references, overwrite, given), screen, key=chosen.key)
    try:
        with screen.showing():
            tally = run.run()
    except KeyboardInterrupt:
        click.echo(f"Stopped. {summary(run.tally)} The same command goes on.", err=True)
        raise
    click.echo(summary(tally), err=chosen.as_json)
    if run.batch is not None:
        click.echo(f"What became of each: lacuna batches manifest {run.batch}", err=True)
    sys.exit(1 if tally.failed else 0)


def _screen(*, as_json: bool) -> "FolderBar | FolderLines":
    from client.screens import FolderBar, FolderJson, FolderLines

    if as_json:
        return FolderJson()
    return FolderBar() if sys.stdout.isatty() else FolderLines()
