"""What holds for every command: server, key, form of the output, exit status."""

import json
import sys
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from client.errors import ClientError

DEFAULT_SERVER = "http://127.0.0.1:8080"
INTERRUPTED = 130
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


def tell(chosen: Choices, items: Sequence[Mapping[str, Any]], lines: Callable[[], Sequence[str]], none: str = "") -> None:
    """Print items: an object a line for programs, else these lines, or on standard error that there are `none`."""
    if chosen.as_json:
        for item in items:
            click.echo(json.dumps(item))
    elif not items:
        click.echo(none, err=True)
    else:
        for line in lines():
            click.echo(line)
