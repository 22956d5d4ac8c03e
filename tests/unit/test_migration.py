"""A database is brought up to date, with a copy beside it, or left as it is with a sentence."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server.migration import NewerDatabase, migrate
from shared.settings import Settings


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert "The database is up to date." in migrate(settings)
    assert migrate(settings) == ["Models: denoise@1, inpaint-classic@1."]


def test_a_database_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    migrate(settings)
    with closing(sqlite3.connect(tmp_path / "lacuna.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    with pytest.raises(NewerDatabase, match="newer Lacuna"):
        migrate(settings)
    assert not list(tmp_path.glob("*.before-*"))
