"""`lacuna folder`: a whole tree through the server, and back."""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from client.cli.program import Choices, choices, main, tell
from client.cli.restore import picture_options

if TYPE_CHECKING:
    from client.screens import FolderBar, FolderLines


SHOWN = 20  # failed pictures at the end of a run in place; `lacuna batches ID` shows all


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
@click.option(
    "--on-existing",
    type=click.Choice(["skip", "overwrite"]),
    default="skip",
    show_default=True,
    help="What becomes of a picture whose output has another file in its place.",
)
@click.option("--in-place", is_flag=True, help="IN and OUT are folders of the server's machine, within its LACUNA_ROOTS: nothing is sent.")
@click.option("--pattern", metavar="PATTERN", help="With --in-place: only paths that fit, as *.tif or 1920s/*.")
@click.option("--verify", is_flag=True, help="Know what was done before by the contents of the files, not by their times.")
@click.option("--dry-run", is_flag=True, help="Only say how much there is to do.")
@choices()
@click.pass_obj
def folder(chosen: Choices, /, source: Path, out: Path, in_place: bool, dry_run: bool, **given: Any) -> None:
    """Restore all pictures below IN to the same places below OUT.

    Run it again after whatever stopped it: it goes on where it was. What is done and unchanged is not done again. A picture that fails
    does not stop the others; links are not followed.
    """
    asked = {name: value for name, value in given.items() if value is not None and value is not False}
    if in_place:
        _restore_in_place(chosen, asked | {"folder": str(source.absolute()), "out": str(out.absolute())}, dry_run=dry_run)
    if "pattern" in asked:
        raise click.UsageError("--pattern goes with --in-place.")
    _send(chosen, source, out, asked, dry_run=dry_run)


def _send(chosen: Choices, source: Path, out: Path, asked: dict[str, Any], *, dry_run: bool) -> None:
    """A folder of this machine, through the server and back."""
    from client.folder import FolderOrder, FolderRun
    from client.screens import sent_survey_lines, summary

    overwrite, verify = asked.pop("on_existing") == "overwrite", asked.pop("verify", False)
    order = FolderOrder(source, out, asked.pop("mask", None), asked.pop("references", None), overwrite, verify, asked)
    screen = folder_screen(as_json=chosen.as_json)
    run = FolderRun(chosen.server, order, screen, key=chosen.key)
    if dry_run:
        tally, size = run.survey()
        found = {
            "pictures": tally.total - tally.ended,
            "bytes": size,
            "kept": tally.kept,
            "skipped": tally.skipped,
            "ignored": tally.ignored,
        }
        tell(chosen, [found], lambda: sent_survey_lines(tally, size))
        return
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


def _restore_in_place(chosen: Choices, order: dict[str, Any], *, dry_run: bool) -> NoReturn:
    """A folder of the server's machine."""
    from client import in_place
    from client.http import Lacuna
    from client.outputs import format_named
    from client.restoring import end_of
    from client.screens import failed_line, summary, survey_lines

    mask = order.pop("mask", None)
    if mask is not None:
        order["masks" if format_named(mask) is None else "mask"] = str(mask.absolute())
    order |= {"references": str(order["references"].absolute())} if "references" in order else {}
    screen = folder_screen(as_json=chosen.as_json)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        if dry_run:
            job = in_place.survey(lacuna, order)
            if job["state"] != "succeeded":
                raise end_of(job)
            tell(chosen, [job["result"]], lambda: survey_lines(job))
            sys.exit(0)
        started, already = in_place.start(lacuna, order)
        if already:
            click.echo(f"The batch {started['id']} does this already.", err=True)
        try:
            with screen.showing():
                batch = in_place.follow(lacuna, started["id"], screen)
        except KeyboardInterrupt:
            click.echo(f"The server goes on. Stop it: lacuna batches cancel {started['id']}", err=True)
            raise
        if batch["state"] in ("failed", "canceled"):
            raise in_place.ended_early(lacuna, batch)
        tally = in_place.tally_of(batch, in_place.listed(lacuna, batch))
        failed = [] if chosen.as_json else list(itertools.islice(lacuna.items(batch["id"], state="failed"), SHOWN))
    for item in failed:
        click.echo(failed_line(item), err=True)
    tell(chosen, [batch], lambda: [summary(tally)])
    click.echo(f"What became of each: lacuna batches manifest {batch['id']}", err=True)
    sys.exit(1 if tally.failed else 0)


def folder_screen(*, as_json: bool) -> "FolderBar | FolderLines":
    """What shows a run over many pictures."""
    from client.screens import FolderBar, FolderJson, FolderLines

    if as_json:
        return FolderJson()
    return FolderBar() if sys.stdout.isatty() else FolderLines()
