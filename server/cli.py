"""The `lacunad` command."""

import importlib.util
import os
import sys

import click
from sqlalchemy.exc import SQLAlchemyError

from server import doctor as doctor_module
from server.migration import NewerDatabase
from server.migration import migrate as migrate_database
from server.up import CannotStart, check_executor
from server.up import up as run_everything
from shared import children, events
from shared import settings as settings_module
from shared.errors import LacunaError
from shared.settings import Settings, SettingsError


def _settings() -> Settings:
    try:
        return settings_module.load()
    except SettingsError as error:
        sys.exit(str(error))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lacuna")
def main() -> None:
    """Lacuna's server: restores pictures on your own machine."""


@main.command()
def up() -> None:
    """Start everything: queue, API, worker, trainer, upkeep. Ctrl-C stops all."""
    events.configure()
    try:
        run_everything(_settings(), click.echo)
    except (CannotStart, NewerDatabase) as error:
        sys.exit(str(error))
    except LacunaError as error:
        sys.exit(f"{error.kind.title}. {error.detail}")
    except (SQLAlchemyError, OSError) as error:
        sys.exit(f"The home or the database cannot be used: {error}\n`lacunad doctor` looks at both.")


@main.command()
def api() -> None:
    """Only the API."""
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
    try:
        for sentence in migrate_database(_settings()):
            click.echo(sentence)
    except NewerDatabase as error:
        sys.exit(str(error))
    except LacunaError as error:
        sys.exit(f"{error.kind.title}. {error.detail}")
    except (SQLAlchemyError, OSError) as error:
        sys.exit(f"The home or the database cannot be used: {error}\n`lacunad doctor` looks at both.")


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
