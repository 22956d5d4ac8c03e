"""docs/operations.md is compared with the settings, the events and the commands there are."""

import logging
import re
from typing import Any

from server.cli import main as lacunad
from shared.events import EVENTS
from shared.settings import PREFIX, Settings
from tests.documents.pages import difference, rows, section, sources, text

PAGE = "docs/operations.md"
COMPUTED = {"home": "`lacuna` in the data folder: `$XDG_DATA_HOME`, else `~/.local/share`"}  # defaults that depend on the user


def _default(name: str, value: Any) -> str:
    if name in COMPUTED:
        return COMPUTED[name]
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value}`" if value != "" else "empty"


def _settings() -> list[tuple[str, ...]]:
    return [
        (f"`{PREFIX}{name.upper()}`", _default(name, None if name in COMPUTED else field.get_default()), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def test_every_setting_has_its_row_with_its_default_and_nothing_else_is_a_setting() -> None:
    found = rows(section(PAGE, "## Settings"), "| variable | default | meaning |")
    wrong = difference(PAGE, found, _settings())
    assert not wrong, f"{wrong}\nThe table repeats shared/settings.py, name, default and description; change the page as above."


def test_every_variable_that_any_page_names_is_a_setting() -> None:
    known = {row[0].strip("`") for row in _settings()} | {"LACUNA_HOME", "LACUNA_SERVER", "LACUNA_KEY"}  # the client's own
    pages = [path for path in sources() if path.suffix == ".md"]
    named = {(path.name, name) for path in pages for name in re.findall(r"\bLACUNA_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8"))}
    unknown = sorted((page, name) for page, name in named if name not in known)
    assert not unknown, f"These pages name settings that do not exist: {unknown}. A reader who sets one is refused at the start."


def test_every_event_has_its_row_and_no_other_is_promised() -> None:
    found = rows(section(PAGE, "## Events"), "| event | level | meaning |")
    expected = [(f"`{name}`", logging.getLevelName(level).lower(), meaning) for name, (level, meaning) in EVENTS.items()]
    wrong = difference(PAGE, found, expected)
    assert not wrong, f"{wrong}\nWho reads a log looks events up here; the table repeats EVENTS in shared/events.py."


def test_every_command_of_lacunad_has_its_row_and_no_other_is_promised() -> None:
    found = rows(section(PAGE, "## Commands"), "| command | what it does |")
    expected = [(f"`lacunad {name}`", command.help or "") for name, command in lacunad.commands.items()]
    wrong = difference(PAGE, found, expected)
    assert not wrong, f"{wrong}\nThe table repeats the first line of each command's help (server/cli.py)."


def test_every_lacunad_command_that_a_page_tells_to_run_exists() -> None:
    named = {
        (path.name, word)
        for path in sources()
        if path.suffix == ".md"
        for word in re.findall(r"`(?:\S+=\S+ )*lacunad (\w+)`", path.read_text(encoding="utf-8"))
    }
    unknown = sorted((page, word) for page, word in named if word not in lacunad.commands)
    assert not unknown, f"These pages tell to run commands that lacunad does not have: {unknown}."


def test_the_changelog_speaks_of_the_version_that_is_there() -> None:
    version = re.search(r'^version = "(.+)"$', text("pyproject.toml"), flags=re.MULTILINE)
    assert version, "pyproject.toml names no version."
    assert f"## {version[1]}" in text("CHANGELOG.md"), (
        f"CHANGELOG.md has no heading for {version[1]}: say there what a user notices, one line a thing."
    )
