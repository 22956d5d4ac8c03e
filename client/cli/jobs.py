"""`lacuna jobs`: list, show, watch, cancel, retry, delete."""

import functools
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from client.cli.program import Choices, Command, choices, main, tell
from client.errors import ClientError, ServerUnreachable
from client.text import legible

if TYPE_CHECKING:
    from client.http import Lacuna

KINDS = ("restore", "train", "evaluate", "ingest", "publish")
LANES = ("interactive", "bulk", "train")
STATES = ("queued", "running", "succeeded", "failed", "canceled")


class JobCommands(click.Group):
    """The group in which `jobs ID` is `jobs show ID`."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, its name and its arguments."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


def filters(command: Command) -> Command:
    """The options that say which jobs are meant."""
    for option in (
        click.option("--label", help="Only jobs with this label."),
        click.option("--lane", type=click.Choice(LANES), help="Only jobs in this lane."),
        click.option("--model", metavar="NAME[@VERSION]", help="Only jobs of this model, or of one version of it."),
        click.option("--task", help="Only jobs of this task."),
        click.option("--kind", type=click.Choice(KINDS), help="Only jobs of this kind."),
        click.option("--state", type=click.Choice(STATES), help="Only jobs in this state."),
    ):
        command = option(command)
    return command


@main.group(invoke_without_command=True, cls=JobCommands, subcommand_metavar="[ID... | COMMAND [ARGS]...]")
@filters
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="List at most this many.")
@choices()
@click.pass_context
def jobs(context: click.Context, /, limit: int, **given: str | None) -> None:
    """List jobs, newest first; with an ID, show that one."""
    if context.invoked_subcommand is not None:
        refuse_options(context, ("limit", *given), "is for the list of jobs; `lacuna jobs watch` takes filters behind `watch`")
        return
    from client.http import Lacuna
    from client.listings import job_table, name_width

    chosen = context.ensure_object(Choices)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        listed = lacuna.jobs(limit=limit, **given)
    width = name_width(shutil.get_terminal_size().columns) if sys.stdout.isatty() else None  # in a pipe lines may be long
    tell(chosen, listed, lambda: job_table(listed, datetime.now(UTC), width), none="There are no jobs.")


def refuse_options(context: click.Context, names: Sequence[str], why: str) -> None:
    """A usage error if one of these options was given, where it would mean nothing."""
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} {why}.")


ids = click.argument("job_ids", nargs=-1, required=True, metavar="ID...")


@jobs.command(short_help="Show jobs.")
@ids
@choices()
@click.pass_obj
def show(chosen: Choices, job_ids: tuple[str, ...]) -> None:
    """Show all that matters about the jobs ID."""
    from client.listings import job_lines

    first = True

    def lines(job: Mapping[str, Any]) -> list[str]:
        nonlocal first
        blank, first = [] if first else [""], False
        return blank + job_lines(job)

    _of_each(chosen, job_ids, lambda lacuna, job_id: lacuna.job(job_id), lines)


@jobs.command(short_help="Watch jobs as they change.")
@click.argument("job_id", required=False, metavar="[ID]")
@filters
@choices()
@click.pass_context
def watch(context: click.Context, /, job_id: str | None, **given: str | None) -> None:
    """Watch jobs as they change, until Ctrl-C; with an ID that one, until it has ended.

    On a terminal this is a table that keeps up, in a pipe a line for each change.
    """
    from client.http import Lacuna
    from client.restoring import end_of
    from client.watching import Board, Changes

    if job_id is not None:
        refuse_options(context, tuple(given), "chooses among all jobs; leave it out, or the ID")
    chosen = context.ensure_object(Choices)
    shown: Board | Changes = Board() if sys.stdout.isatty() and not chosen.as_json else Changes(as_json=chosen.as_json)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        if job_id is None:
            shown.all(lacuna, {name: value for name, value in given.items() if value is not None})
            return
        job = shown.one(lacuna, job_id)
    if job["state"] != "succeeded":
        raise end_of(job)


@jobs.command(short_help="Cancel jobs.")
@ids
@choices()
@click.pass_obj
def cancel(chosen: Choices, job_ids: tuple[str, ...]) -> None:
    """Cancel the jobs ID; this is final."""
    _of_each(chosen, job_ids, lambda lacuna, job_id: lacuna.cancel(job_id), lambda job: [f"{job['id']}  canceled"])


@jobs.command(short_help="Do jobs again.")
@ids
@choices()
@click.pass_obj
def retry(chosen: Choices, job_ids: tuple[str, ...]) -> None:
    """Do the jobs ID again, which have ended. Each becomes a new job with the same picture."""
    _of_each(chosen, job_ids, lambda lacuna, job_id: lacuna.retry(job_id), lambda job: [f"{job['retry_of']}  again as {job['id']}"])


@jobs.command(short_help="Delete jobs and their files.")
@ids
@choices()
@click.pass_obj
def delete(chosen: Choices, job_ids: tuple[str, ...]) -> None:
    """Delete the jobs ID, which have ended, with their pictures and results."""

    def deleted(lacuna: "Lacuna", job_id: str) -> dict[str, Any]:
        lacuna.delete(job_id)
        return {"id": job_id, "deleted": True}

    _of_each(chosen, job_ids, deleted, lambda job: [f"{job['id']}  deleted"])


def _of_each(
    chosen: Choices,
    job_ids: Sequence[str],
    act: Callable[["Lacuna", str], Mapping[str, Any]],
    lines: Callable[[Mapping[str, Any]], Sequence[str]],
) -> None:
    """Act on each job and tell what became of it. One that fails does not stop the others, but a server that is away does."""
    from client.http import Lacuna

    failed = []
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        for job_id in job_ids:
            try:
                done = act(lacuna, job_id)
            except ServerUnreachable:
                raise
            except ClientError as error:
                failed.append(error)
                if chosen.as_json:
                    click.echo(json.dumps({"id": job_id, "error": error.as_json()}))
                click.echo(str(error) if len(job_ids) == 1 else f"{legible(job_id)}: {error}", err=True)
            else:
                tell(chosen, [done], functools.partial(lines, done))
    if failed:
        sys.exit(3 if any(error.is_servers for error in failed) else 1)
