"""Dockerfile and docker-compose.yml are what their tools accept, hold no secret, and run commands that exist."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types

from server.cli import main as lacunad
from shared.settings import load
from tests.documents.pages import ROOT, text

COMPOSE, DOCKERFILE = "docker-compose.yml", "Dockerfile"
PARTS = {"migrate", "api", "worker", "trainer", "upkeep"}


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(text(COMPOSE))["services"]
    return found


def stages() -> list[tuple[str, str]]:
    """(image or stage, name) of each stage of the Dockerfile."""
    return re.findall(r"^FROM (\S+) AS (\S+)$", text(DOCKERFILE), flags=re.MULTILINE)


def test_the_compose_file_is_one_by_the_schema_of_compose() -> None:
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_has_nothing_to_lint() -> None:
    done = run("hadolint", "--no-color", DOCKERFILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_part_runs_a_command_of_lacunad_and_no_part_is_missing(services: dict[str, dict[str, Any]]) -> None:
    commands = {name: service["command"] for name, service in services.items() if name in PARTS}
    assert commands == {name: [name] for name in PARTS}
    assert lacunad.commands.keys() >= PARTS


def test_the_trainer_has_tensorflow_and_nobody_else_does(services: dict[str, dict[str, Any]]) -> None:
    targets = {name: service["build"]["target"] for name, service in services.items() if "build" in service}
    assert targets == {name: "full" if name == "trainer" else "light" for name in PARTS}
    assert set(targets.values()) <= {name for _, name in stages()}
    assert "requirements/serving.txt" in text(DOCKERFILE)


def test_settings_in_compose_are_settings_and_ask_for_keys(services: dict[str, dict[str, Any]]) -> None:
    for name in PARTS:
        given = {name: re.sub(r"\$\{\w+:\?[^}]*\}", "x", value) for name, value in services[name]["environment"].items()}
        settings = load({**given, "LACUNA_BIND": "0.0.0.0:8080"}, Path("nowhere"))
        assert settings.needs_keys
        assert settings.database.startswith("postgresql+psycopg://")
    assert "LACUNA_BIND=0.0.0.0:8080" in text(DOCKERFILE)


def test_no_secret_stands_in_the_files_and_what_is_missing_is_asked_for_with_a_sentence() -> None:
    lines = [line for line in text(COMPOSE).splitlines() if not line.startswith("#")]
    assert len(re.findall(r"\$\{POSTGRES_PASSWORD:\?is not set\. Set it to [^}]+\}", "\n".join(lines))) == 2
    rest = re.sub(r"\$\{\w+:\?[^}]+\}", "", "\n".join(lines))
    assert not re.search(r"://\w*:\w+@|(?:PASSWORD|SECRET|TOKEN|_KEY)\w*:[ ]*\S", rest)
    assert not re.search(r"PASSWORD|SECRET|TOKEN", text(DOCKERFILE))


def test_the_images_run_as_nobody_special_and_what_must_last_lies_in_volumes(services: dict[str, dict[str, Any]]) -> None:
    bare = text(DOCKERFILE).partition(" AS bare\n")[2].partition("\nFROM ")[0]
    assert re.search(r"^USER [1-9][0-9]*$", bare, flags=re.MULTILINE)
    assert {image for image, name in stages() if name in ("light", "full")} == {"bare"}
    for name, service in services.items():
        assert name == "valkey" or service["volumes"], f"{name} keeps nothing"
    assert all("healthcheck" in services[name] for name in ("postgres", "valkey", "api"))


def test_the_base_image_can_be_chosen() -> None:
    assert text(DOCKERFILE).count("\nARG BASE=") == 1
    assert {image for image, _ in stages()} == {"${BASE}", "bare"}
