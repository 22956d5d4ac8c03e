"""`lacuna models`: list, show, name, choose, delete, add."""

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.program import Choices, choices, main, tell
from client.errors import ClientError

if TYPE_CHECKING:
    pass

TRAINER_WAIT_S = 10  # until we say that nobody has taken the job


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
    tell(chosen, listed, lambda: model_table(listed), none="There are no models.")


class Versioned(click.ParamType[tuple[str, int]]):
    """`NAME@VERSION`, as a pair."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """The name and the version."""
        if not (found := re.fullmatch(r"([a-z][a-z0-9-]{0,62})@([0-9]{1,9})", str(value))):
            self.fail(f"{value!r} is no version of a model. Write it as NAME@VERSION; `lacuna models` lists them.", param, ctx)
        return found[1], int(found[2])


versioned = click.argument("version", type=Versioned(), metavar="NAME@VERSION")


@models.command(short_help="Show the card of a model.")
@versioned
@choices()
@click.pass_obj
def show(chosen: Choices, version: tuple[str, int]) -> None:
    """Show the card of a model: what it is, how good it is at what, what it learnt from, and on what terms.

    In a pipe this is Markdown; with --json it is the model with all its figures.
    """
    from client.http import Lacuna
    from client.listings import card_lines

    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        if chosen.as_json:
            tell(chosen, [lacuna.model(*version)], list)
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
    tell(chosen, [done], lambda: [f"{said}."])


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
    tell(chosen, [done], lambda: [f"{said}."])


@models.command(short_help="Delete a model of your own.")
@versioned
@choices()
@click.pass_obj
def delete(chosen: Choices, version: tuple[str, int]) -> None:
    """Delete this version of a model of your own, and its files.

    Its number is not used again. What names it, an alias, a default or a job that has not ended, has to go first.
    """
    from client.http import Lacuna

    written = "{}@{}".format(*version)
    with Lacuna(chosen.server, key=chosen.key) as lacuna:
        lacuna.delete_model(*version)
    tell(chosen, [{"model": written, "deleted": True}], lambda: [f"{written} is deleted."])


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
    tell(chosen, [job], lambda: [ready])
