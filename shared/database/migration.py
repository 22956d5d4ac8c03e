"""Bringing a database to this version's tables."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from shared.database.engine import READ_ONLY, be_alone


def migrate(engine: Engine) -> None:
    """Bring the database to this version's tables, all or nothing. Does nothing where it is up to date."""
    config = _config()
    with engine.connect() as connection:
        be_alone(connection)
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def revisions(engine: Engine) -> tuple[str | None, str | None]:
    """(the database's revision, or None if it is empty; this version's)."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    with engine.connect().execution_options(**READ_ONLY) as connection:
        return MigrationContext.configure(connection).get_current_revision(), newest


def is_known(revision: str) -> bool:
    """Whether this version has tables of that revision; a newer version's are unknown."""
    return revision in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
