"""The `lacunad` command."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click
from sqlalchemy.exc import SQLAlchemyError

from server import doctor as doctor_module
from server import keys as keys_module
from server.migration import NewerDatabase
from server.migration import migrate as migrate_database
from server.up import CannotStart, check_executor
from server.up import up as run_everything
from shared import children, events
from shared import settings as settings_module
from shared.errors import LacunaError
from shared.keys.store import LOCAL, OWNER
from shared.settings import Settings, SettingsError


def _settings() -> Settings:
    try:
        return settings_module.load()
    except SettingsError as error:
        sys.exit(str(error))


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Whatever goes wrong within ends as a sentence."""
    try:
        yield
    except (CannotStart, NewerDatabase) as error:
        sys.exit(str(error))
    except LacunaError as error:
        sys.exit(f"{error.kind.title}. {error.detail}")
    except (SQLAlchemyError, OSError) as error:
        sys.exit(f"The home or the database cannot be used: {error}\n`lacunad doctor` looks at both.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lacuna")
def main() -> None:
    """Lacuna's server: restores pictures on your own machine."""


@main.command()
def up() -> None:
    """Start everything: queue, API, worker, trainer, upkeep. Ctrl-C stops all."""
    events.configure()
    with _sentences():
        run_everything(_settings(), click.echo)


@main.command()
def api() -> None:
    """Only the API."""
    with _sentences():
        said = keys_module.first(_settings())
    for sentence in said:
        click.echo(sentence)
    _become(children.python("gunicorn", "--config", "python:api.serving", "api.wsgi:app"))


@main.command()
def worker() -> None:
    """Only a worker, with its guardian."""
    try:
        check_executor(_settings())
    except CannotStart as error:
        sys.exit(str(error))
    _become(children.python("worker.guardian", "worker"))


@main.command()
def trainer() -> None:
    """Only a trainer: the worker that makes added models ready."""
    if importlib.util.find_spec("tensorflow") is None:
        sys.exit("A trainer needs TensorFlow: install requirements/full.txt.")
    _become(children.python("worker.guardian", "trainer"))


@main.command()
def upkeep() -> None:
    """Only upkeep: rings again, reaps, sweeps."""
    _become(children.python("worker.upkeep"))


@main.command(short_help="Bring the database to this version.")
def migrate() -> None:
    """Bring the database to this version and register the shipped models."""
    with _sentences():
        for sentence in migrate_database(_settings()):
            click.echo(sentence)


@main.group()
def keys() -> None:
    """Make, list and revoke the keys that are needed beyond this machine."""


@keys.command()
@click.option("--owner", default=LOCAL, show_default=True, help="Whose jobs it opens: lower-case letters, digits and hyphens.")
@click.option("--label", help="What it is for, to know it by.")
def add(owner: str, label: str | None) -> None:
    """Make a key and show it, once."""
    if not OWNER.fullmatch(owner):
        raise click.UsageError("--owner takes up to 36 lower-case letters, digits and hyphens.")
    with _sentences(), keys_module.opened(_settings()) as known:
        click.echo(known.make(owner, label))


@keys.command("list")
def list_keys() -> None:
    """List the keys; the keys themselves are known to their owners only."""
    with _sentences(), keys_module.opened(_settings()) as known:
        listed = known.list()
    for key in listed:
        made = datetime.fromtimestamp(key.created_at / 1000, UTC).strftime("%Y-%m-%d")
        click.echo(f"{key.id}  {key.owner_id:<12} {made}  {'revoked' if key.revoked_at else 'valid':<7}  {key.label or ''}".rstrip())


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Revoke the key ID; from now on it opens nothing."""
    with _sentences(), keys_module.opened(_settings()) as known:
        if not known.revoke(key_id):
            sys.exit("There is no valid key of that id: `lacunad keys list` shows them.")


@main.command(short_help="Say what is there and what is missing.")
def doctor() -> None:
    """Look at everything that Lacuna needs; exit status 1 if something is missing."""
    missing = False
    for finding in doctor_module.examine(_settings()):
        mark = click.style("look", fg="yellow") if finding.advice else click.style("ok", fg="green")
        click.echo(
            f"{mark:<4}  {finding.name:<9} {finding.what}" if not sys.stdout.isatty() else f"{mark}\t{finding.name:<9} {finding.what}"
        )
        if finding.advice:
            missing = True
            click.echo(f"      {'':<9} {finding.advice}")
    sys.exit(1 if missing else 0)


def _become(argv: list[str]) -> None:
    """Replace this process by the part, so that signals reach it directly."""
    _settings()  # say what is wrong with them before anything starts
    os.execv(argv[0], argv)  # noqa: S606  # our own Python


if __name__ == "__main__":
    main()
