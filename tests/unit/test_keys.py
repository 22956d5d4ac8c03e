"""`lacunad keys`, and the first key."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from server import keys
from server.cli import main
from server.migration import migrate
from shared.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    migrate(Settings(home=tmp_path))
    return tmp_path


def lacunad(home: Path, *arguments: str) -> Result:
    return CliRunner(env={"LACUNA_HOME": str(home)}).invoke(main, ["keys", *arguments])


def owner_of(home: Path, key: str) -> Any:
    with keys.opened(Settings(home=home)) as known:
        return known.owner_of(key)


def test_a_key_is_shown_when_it_is_made_and_never_again(home: Path) -> None:
    key = lacunad(home, "add", "--owner", "anna", "--label", "laptop").stdout.strip()
    assert owner_of(home, key) == "anna"
    listed = lacunad(home, "list").stdout
    assert "anna" in listed and "laptop" in listed and "valid" in listed
    assert key not in listed
    assert lacunad(home, "revoke", listed.split()[0]).exit_code == 0
    assert "revoked" in lacunad(home, "list").stdout
    assert owner_of(home, key) is None
    assert lacunad(home, "revoke", listed.split()[0]).exit_code == 1, "it is revoked already"


@pytest.mark.parametrize("owner", ["", "Anna", "a b", "-a", "x" * 37, "../a"])
def test_an_owner_has_a_plain_name(home: Path, owner: str) -> None:
    assert lacunad(home, "add", "--owner", owner).exit_code == 2
    assert lacunad(home, "list").stdout == ""


def test_a_home_without_a_database_is_a_sentence(tmp_path: Path) -> None:
    result = lacunad(tmp_path, "list")
    assert result.exit_code == 1
    assert "doctor" in result.output
    assert "Traceback" not in result.output


def test_the_first_start_that_others_can_reach_shows_a_key_and_no_other_start_does(home: Path) -> None:
    alone, reached = Settings(home=home), Settings(home=home, bind="0.0.0.0:8080")
    assert keys.first(alone) == []
    (said,) = keys.first(reached)
    found = re.search(r"lacuna_\S+", said)
    assert found
    assert owner_of(home, found[0]) == "local"
    assert keys.first(reached) == []
