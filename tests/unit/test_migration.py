"""A database is brought up to date, with a copy beside it, or left as it is with a sentence."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import make_url, text

from server import doctor
from server.migration import NewerDatabase, migrate
from shared.database import migration
from shared.database.engine import open_database
from shared.database.tables import metadata
from shared.models.store import Models
from shared.settings import Settings
from tests import databases


@pytest.fixture(params=databases.KINDS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    with databases.empty(request.param, tmp_path) as url:
        yield Settings(home=tmp_path, database_url=url)


def rewind(settings: Settings, revision: str) -> None:
    engine = open_database(settings.database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def test_a_second_start_changes_nothing(settings: Settings) -> None:
    assert "The database is up to date." in migrate(settings)
    assert migrate(settings) == ["Models: denoise@1, denoise@2, denoise-fast@1, denoise-real@1, inpaint@1, inpaint-classic@1."]


def test_on_postgresql_two_starts_at_once_migrate_one_after_the_other(tmp_path: Path) -> None:
    with databases.empty("postgresql", tmp_path) as url:
        environ = {**os.environ, "LACUNA_HOME": str(tmp_path), "LACUNA_DATABASE_URL": url}
        argv = [sys.executable, "-m", "server.cli", "migrate"]
        starts = [subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
        said = [start.communicate()[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], said
    assert all(
        "Models: denoise@1, denoise@2, denoise-fast@1, denoise-real@1, inpaint@1, inpaint-classic@1." in sentences for sentences in said
    )


def test_a_database_of_a_newer_version_is_left_as_it_is(settings: Settings) -> None:
    migrate(settings)
    rewind(settings, "9999")
    with pytest.raises(NewerDatabase, match="newer Lacuna"):
        migrate(settings)
    assert not list(settings.home.glob("*.before-*"))


def test_the_migrations_make_the_tables_that_the_code_knows(settings: Settings) -> None:
    migrate(settings)
    engine = open_database(settings.database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_aliases_and_defaults_from_before_they_had_owners_hold_for_all(settings: Settings) -> None:
    engine = open_database(settings.database)
    with engine.connect() as connection:
        config = migration._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.execute(text("INSERT INTO aliases (name, alias, version, changed_at) VALUES ('denoise', 'old', 1, 7)"))
        connection.execute(text("INSERT INTO defaults (task, name, version) VALUES ('denoise', 'denoise', 1)"))
        connection.commit()
    migrate(settings)
    found = Models(engine)
    assert found.defaults("anybody") == {"denoise": "denoise@1", "inpaint": "inpaint@1"}
    assert found.aliases("anybody") == {"denoise@1": ["old"]}
    with engine.connect() as connection:
        assert connection.execute(text("SELECT changed_at FROM aliases")).scalar_one() == 7
        for table in ("aliases", "defaults"):
            assert connection.execute(text(f"SELECT count(*) FROM {table} WHERE owner_id IS NOT NULL")).scalar_one() == 0  # noqa: S608
    found.set_alias("local", "denoise", "new", 1, lambda _: True)  # a new row gets a number of its own
    engine.dispose()


def test_no_sentence_shows_the_password_of_the_database(tmp_path: Path) -> None:
    with databases.empty("postgresql", tmp_path) as url:
        secret = make_url(url).set(password="do-not-tell").render_as_string(hide_password=False)  # noqa: S106  # it opens nothing
        settings = Settings(home=tmp_path, database_url=secret)
        migrate(settings)
        rewind(settings, "9999")
        with pytest.raises(NewerDatabase) as refusal:
            migrate(settings)
        said = [str(refusal.value), *(str(finding) for finding in doctor.examine(settings))]
    assert not [sentence for sentence in said if "do-not-tell" in sentence]
    assert [sentence for sentence in said if "***" in sentence]
