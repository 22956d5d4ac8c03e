"""`lacuna models` against the real API: what each command does, says, and ends with."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from client.cli import main
from client.listings import card_lines
from shared.models import registry
from shared.models.card import card
from tests.contracts.api_fixtures import House, open_house


@dataclass
class Served:
    """The API at an address, which loses the next so many answers of unsafe requests, after they were done."""

    house: House
    url: str = ""
    loses: int = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        answer = self.house.app(environ, start_response)
        if self.loses and environ["REQUEST_METHOD"] != "GET":
            self.loses -= 1
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer

    def lacuna(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["--server", self.url, "models", *arguments])

    def said(self, *arguments: str) -> str:
        result = self.lacuna(*arguments)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    def refused(self, *arguments: str, status: int = 1) -> str:
        result = self.lacuna(*arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        return str(result.stderr)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with open_house(tmp_path, shipped=True) as house:
        for version in (1, 2):
            house.publish("mine", version)
        served = Served(house)
        server = make_server("127.0.0.1", 0, served, threaded=True)
        served.url = f"http://127.0.0.1:{server.port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield served
        server.shutdown()
        thread.join()
        server.server_close()


def test_show_prints_the_card_and_as_json_the_model(served: Served) -> None:
    assert served.said("show", "denoise@1") == card(registry.shipped()[0])
    model = json.loads(served.said("show", "mine@2", "--json"))
    assert (model["name"], model["version"], model["state"]) == ("mine", 2, "ready")
    assert "There is no such model" in served.refused("show", "mine@9")


def test_a_card_fits_a_terminal() -> None:
    for found in registry.shipped():
        for width in (60, 80, 120):
            lines = card_lines(card(found), width)
            assert max(map(len, lines)) <= width
            assert found.reference in lines[0]
    assert "33.55" in "\n".join(card_lines(card(registry.shipped()[0]), 80))
    assert card_lines("a\x1b[31m\nb", None) == ["a?[31m", "b"]


def test_alias_names_a_version_and_takes_the_name_away(served: Served) -> None:
    assert served.said("alias", "mine@1", "prod") == "mine@prod means mine@1.\n"
    assert served.house.restored(model="mine").model == "mine@1"
    assert json.loads(served.said("alias", "mine@1", "next", "--json"))["aliases"] == ["next", "prod"]
    assert "mine@prod names version 1" in served.refused("alias", "mine@2", "prod", "--remove")
    assert served.said("alias", "mine@1", "prod", "--remove") == "mine@prod is gone.\n"
    assert json.loads(served.said("alias", "mine@1", "next", "--remove", "--json")) == {"model": "mine@1", "alias": "next", "removed": True}
    assert served.house.restored(model="mine").model == "mine@2"
    assert "begins with a letter" in served.refused("alias", "mine@1", "7")


def test_default_is_used_where_no_model_is_named_until_it_is_removed(served: Served) -> None:
    assert served.said("default", "mine@1") == "mine@1 is the default of denoise.\n"
    assert served.house.restored().model == "mine@1"
    assert json.loads(served.said("default", "mine@2", "--json"))["default"] is True
    assert "mine@1 is not the default of denoise" in served.refused("default", "mine@1", "--remove")
    assert served.said("default", "mine@2", "--remove") == "The default of denoise is what comes with Lacuna.\n"
    assert served.house.restored().model == "denoise@2"


def test_delete_removes_a_version_that_nothing_names(served: Served) -> None:
    served.said("alias", "mine@1", "prod")
    assert "the alias prod" in served.refused("delete", "mine@1")
    assert "comes with Lacuna" in served.refused("delete", "denoise@1")
    served.said("alias", "mine@1", "prod", "--remove")
    assert served.said("delete", "mine@1") == "mine@1 is deleted.\n"
    assert json.loads(served.said("delete", "mine@2", "--json")) == {"model": "mine@2", "deleted": True}
    assert "There is no such model" in served.refused("delete", "mine@1")


@pytest.mark.parametrize("command", ["show", "alias", "default", "delete"])
@pytest.mark.parametrize("written", ["mine", "mine@", "mine@prod", "mine@²", "@1", "../x@1"])
def test_what_is_no_version_is_a_usage_error(command: str, written: str) -> None:
    result = CliRunner().invoke(main, ["models", command, written, *(["prod"] if command == "alias" else [])])
    assert result.exit_code == 2
    assert "Write it as NAME@VERSION" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("alias", "mine@1", "new"), ("alias", "mine@1", "old", "--remove"), ("default", "mine@1"), ("default", "mine@2", "--remove"),
     ("delete", "mine@1")],
)  # fmt: skip
def test_an_answer_that_is_lost_is_no_failure(served: Served, arguments: tuple[str, ...]) -> None:
    if "--remove" in arguments:
        served.said("alias", "mine@1", "old")
        served.said("default", "mine@2")
    served.loses = 1
    served.said(*arguments)
    assert served.loses == 0
