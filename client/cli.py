"""The `lacuna` command. What takes long to import (httpx, rich) is imported by the commands that need it."""

import functools
import json
import re
import shutil
import sys
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from client.errors import ClientError, ServerUnreachable
from client.outputs import Destination, asked_change, destination_of, format_named
from client.text import legible

if TYPE_CHECKING:
    from client.http import Lacuna
    from client.restoring import Outcome, Screen

DEFAULT_SERVER = "http://127.0.0.1:8080"
INTERRUPTED = 130
TRAINER_WAIT_S = 10  # until we say that nobody has taken the job
KINDS = ("restore", "train", "evaluate", "ingest", "publish")
LANES = ("interactive", "bulk", "train")
STATES = ("queued", "running", "succeeded", "failed", "canceled")
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class Choices:
    """What holds for every command."""

    server: str = DEFAULT_SERVER
    key: str | None = None
    as_json: bool = False


class Commands(click.Group):
    """The group that turns errors of the server, and Ctrl-C, into sentences and exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except ClientError as error:
            if ctx.ensure_object(Choices).as_json:
                click.echo(json.dumps({"error": error.as_json()}))
            click.echo(str(error), err=True)
            sys.exit(3 if error.is_servers else 1)


def choices(envvar: str | None = None) -> Callable[[Command], Command]:
    """`--server` and `--json`, which may stand before a command or behind it; only the former reads `envvar`."""

    def add(command: Command) -> Command:
        command = click.option("--json", is_flag=True, expose_value=False, callback=_choose_json, help="Print JSON, one object a line.")(
            command
        )
        return click.option(
            "--server",
            metavar="URL",
            envvar=envvar,
            show_envvar=True,
            expose_value=False,
            callback=_choose_server,
            help=f"Where Lacuna answers, if not at {DEFAULT_SERVER}.",
        )(command)

    return add


def _choose_server(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        parts = urllib.parse.urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter(f"{value!r} is no address. Write it as {DEFAULT_SERVER}.")
    context.ensure_object(Choices).server = value.rstrip("/")


def _choose_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Choices).as_json |= value


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@choices("LACUNA_SERVER")
@click.option(
    "--key",
    metavar="KEY",
    envvar="LACUNA_KEY",
    show_envvar=True,
    help="For a server that asks for one; others see options, so rather the variable.",
)
@click.pass_context
def main(context: click.Context, key: str | None) -> None:
    """Restore pictures with a Lacuna server.

    Exit status: 0 all done, 1 some failed, 2 the command was not understood, 3 the server is away or at fault.
    """
    if key is not None and not (key.isascii() and key.isprintable()):  # it goes into a header
        raise click.BadParameter("A key is what `lacunad keys add` printed, on one line.", param_hint="LACUNA_KEY")
    context.ensure_object(Choices).key = key


@main.command(short_help="Restore pictures, four at a time.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False), metavar="FILES...")
@click.option(
    "-o", "--out", metavar="PLACE", help="A folder, where names are kept, or a file. Without it: beside each picture, as NAME.restored.jpg."
)
@click.option("--task", default="denoise", show_default=True, help="What to do: denoise, or inpaint what --mask marks.")
@click.option("--mask", metavar="PICTURE", type=click.Path(path_type=Path), help="Of the same size: what is not black in it is filled.")
@click.option(
    "--reference", metavar="PICTURE", type=click.Path(path_type=Path), help="The picture undamaged: tells by how many dB it got better."
)
@click.option("--model", metavar="NAME", help="A model of `lacuna models`, as NAME or NAME@VERSION. Without it: the task's own.")
@click.option(
    "--format",
    type=click.Choice(["keep", "png", "jpeg", "tiff", "webp", "bmp"]),
    default="keep",
    show_default=True,
    help="Format of the output.",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Of a JPEG or WebP output. Without it: as good as the input, and a WebP without loss if it came so.",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1, min_open=True),
    help="Of denoising: 0.5 goes half the way from the noisy picture to the clean one. Without it: all the way.",
)
@click.option(
    "--speed",
    type=click.Choice(["normal", "best"]),
    default="normal",
    show_default=True,
    help="best: a little better, in eight times the time.",
)
@click.option("--label", help="A word to find the jobs by.")
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
        _refuse_options(context, ("limit", *given), "is for the list of jobs; `lacuna jobs watch` takes filters behind `watch`")
        return
    from client.http import Lacuna
    from client.listings import job_table, name_width

    chosen = context.ensure_object(Choices)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        listed = lacuna.jobs(limit=limit, **given)
    width = name_width(shutil.get_terminal_size().columns) if sys.stdout.isatty() else None  # in a pipe lines may be long
    _print(chosen, listed, lambda: job_table(listed, datetime.now(UTC), width), none="There are no jobs.")


def _refuse_options(context: click.Context, names: Sequence[str], why: str) -> None:
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
        _refuse_options(context, tuple(given), "chooses among all jobs; leave it out, or the ID")
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
                _print(chosen, [done], functools.partial(lines, done))
    if failed:
        sys.exit(3 if any(error.is_servers for error in failed) else 1)


@main.group(invoke_without_command=True)
@choices()
@click.pass_context
def models(context: click.Context) -> None:
    """List models, with the PSNR that they were measured at; or show one, say what names mean, add or delete one."""
    if context.invoked_subcommand is not None:
        return
    from client.http import Lacuna
    from client.listings import model_table

    chosen = context.ensure_object(Choices)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        listed = lacuna.models()
    _print(chosen, listed, lambda: model_table(listed), none="There are no models.")


class Versioned(click.ParamType[tuple[str, int]]):
    """`NAME@VERSION`, as a pair."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """The name and the version."""
        if not (found := re.fullmatch(r"([a-z][a-z0-9-]{0,62})@([0-9]{1,9})", str(value))):
            self.fail(f"{value!r} is no version of a model. Write it as NAME@VERSION; `lacuna models` lists them.", param, ctx)
        return found[1], int(found[2])


versioned = click.argument("version", type=Versioned(), metavar="NAME@VERSION")


@models.command("show", short_help="Show the card of a model.")
@versioned
@choices()
@click.pass_obj
def show_model(chosen: Choices, version: tuple[str, int]) -> None:
    """Show the card of a model: what it is, how good it is at what, what it learnt from, and on what terms.

    In a pipe this is Markdown; with --json it is the model with all its figures.
    """
    from client.http import Lacuna
    from client.listings import card_lines

    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        if chosen.as_json:
            _print(chosen, [lacuna.model(*version)], list)
            return
        card = lacuna.card(*version)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in card_lines(card, width):
        click.echo(line)


@models.command(short_help="Give a model another name.")
@versioned
@click.argument("name", metavar="ALIAS")
@click.option("--remove", is_flag=True, help="Take the alias away, if it names this version.")
@choices()
@click.pass_obj
def alias(chosen: Choices, version: tuple[str, int], name: str, remove: bool) -> None:
    """Make ALIAS name this version: NAME@ALIAS then means it, and with the alias prod the bare NAME does."""
    from client.http import Lacuna

    model, written = version[0], "{}@{}".format(*version)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        if remove:
            lacuna.remove_alias(*version, name)
            done, said = {"model": written, "alias": name, "removed": True}, f"{model}@{name} is gone"
        else:
            done, said = lacuna.set_alias(*version, name), f"{model}@{name} means {written}"
    _print(chosen, [done], lambda: [f"{said}."])


@models.command(short_help="Use a model where none is named.")
@versioned
@click.option("--remove", is_flag=True, help="Go back to the default that comes with Lacuna.")
@choices()
@click.pass_obj
def default(chosen: Choices, version: tuple[str, int], remove: bool) -> None:
    """Make this version the default of its task: what your jobs use that name no model."""
    from client.http import Lacuna

    written = "{}@{}".format(*version)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        found = lacuna.model(*version)
        task = found["task"]
        if not remove:
            done, said = lacuna.set_default(task, *version), f"{written} is the default of {task}"
        elif found["default"]:
            lacuna.remove_default(task)
            done, said = {"model": written, "task": task, "removed": True}, f"The default of {task} is what comes with Lacuna"
        else:
            raise ClientError("not_default", f"{written} is not the default of {task}", "`lacuna models` shows which one is.")
    _print(chosen, [done], lambda: [f"{said}."])


@models.command("delete", short_help="Delete a model of your own.")
@versioned
@choices()
@click.pass_obj
def delete_model(chosen: Choices, version: tuple[str, int]) -> None:
    """Delete this version of a model of your own, and its files.

    Its number is not used again. What names it, an alias, a default or a job that has not ended, has to go first.
    """
    from client.http import Lacuna

    written = "{}@{}".format(*version)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        lacuna.delete_model(*version)
    _print(chosen, [{"model": written, "deleted": True}], lambda: [f"{written} is deleted."])


@models.command(short_help="Add a model of your own.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@choices()
@click.pass_obj
def add(chosen: Choices, folder: Path) -> None:
    """Add the model in FOLDER, as `python -m trainer train` wrote it, and wait until it is ready."""
    from client.http import Lacuna
    from client.restoring import end_of
    from client.text import duration

    for name in ("manifest.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise click.UsageError(f"{folder} holds no {name}. Name the folder that a training wrote.")
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        job_id = lacuna.add_model(folder)["id"]
        if lacuna.job(job_id, wait_s=TRAINER_WAIT_S)["state"] == "queued":
            click.echo("Waiting for a trainer. `lacunad up` starts one where TensorFlow is installed.", err=True)
        job = lacuna.wait(job_id)
    if job["state"] != "succeeded":
        raise end_of(job)
    ready = f"{job['model']} is ready, after {duration(job['result']['seconds'])}. Use it with: lacuna restore --model {job['model']} FILES"
    if reason := job["result"].get("inexpressible"):
        click.echo(f"OpenVINO cannot run it ({reason}); TensorFlow will, where it is installed.", err=True)
    _print(chosen, [job], lambda: [ready])


def _print(chosen: Choices, items: Sequence[Mapping[str, Any]], lines: Callable[[], Sequence[str]], none: str = "") -> None:
    if chosen.as_json:
        for item in items:
            click.echo(json.dumps(item))
    elif not items:
        click.echo(none, err=True)
    else:
        for line in lines():
            click.echo(line)
