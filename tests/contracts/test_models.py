"""The registry of models: what is registered, and what a name means."""

from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from shared.database.tables import aliases, models
from shared.errors import Fault, Refused
from shared.models.manifest import Manifest
from shared.models.store import Models


def manifest(name: str, version: int, **cares: Any) -> Manifest:
    values = {
        "schema": 1, "name": name, "version": version, "task": "denoise", "architecture": "none", "config": {"widths": [8]},
        "weights_sha256": "a" * 64, "parameters": 1, "created_at": "2026-01-01T00:00:00Z", "base": None, "recipe": {},
        "data": [{"name": "made up", "sha256": "b" * 64, "images": 1, "terms": "none"}], "metrics": {}, "licence": "Apache-2.0",
    }  # fmt: skip
    return Manifest.model_validate({**values, **cares})


@pytest.fixture
def registry(engine: Engine) -> Models:
    return Models(engine)


def alias(engine: Engine, name: str, alias: str, version: int) -> None:
    with engine.begin() as connection:
        connection.execute(insert(aliases).values(name=name, alias=alias, version=version, changed_at=0))


def names(found: list[Manifest]) -> list[str]:
    return [one.reference for one in found]


def test_what_was_registered_comes_back_whole_in_order_of_name_and_version(registry: Models) -> None:
    given = [manifest("b", 10), manifest("b", 9), manifest("a", 1, metrics={"psnr": 31.5})]
    registry.register(given)
    assert registry.list() == [given[2], given[1], given[0]]


def test_registering_again_changes_nothing(registry: Models) -> None:
    registry.register([manifest("a", 1)])
    registry.register([manifest("a", 1)])
    assert names(registry.list()) == ["a@1"]


def test_a_version_never_changes_its_weights(registry: Models) -> None:
    registry.register([manifest("a", 1)])
    with pytest.raises(Fault) as fault:
        registry.register([manifest("b", 1), manifest("a", 1, weights_sha256="c" * 64)])
    assert fault.value.code == "artifact_invalid"
    assert names(registry.list()) == ["a@1"], "a refused registration left something behind"


def test_the_newest_version_of_the_first_name_becomes_the_default(registry: Models) -> None:
    registry.register([manifest("a", 1), manifest("a", 2), manifest("b", 3), manifest("fill", 1, task="inpaint")])
    assert registry.defaults() == {"denoise": "a@2", "inpaint": "fill@1"}


def test_a_default_once_set_stays_when_a_newer_version_arrives(registry: Models) -> None:
    registry.register([manifest("a", 1)])
    registry.register([manifest("a", 1), manifest("a", 2)])
    assert registry.defaults() == {"denoise": "a@1"}
    assert registry.resolve("denoise", None).reference == "a@1"


@pytest.mark.parametrize(("wanted", "means"), [(None, "b@3"), ("", "b@3"), ("a", "a@11"), ("a@2", "a@2"), ("a@02", "a@2"), ("b@3", "b@3")])
def test_a_name_means_its_newest_version_and_none_means_the_default(wanted: str | None, means: str, registry: Models) -> None:
    registry.register([manifest("b", 3)])
    registry.register([manifest("a", 2), manifest("a", 11)])
    assert registry.resolve("denoise", wanted).reference == means


def test_a_bare_name_means_its_alias_prod_where_that_is_set(registry: Models, engine: Engine) -> None:
    registry.register([manifest("a", 1), manifest("a", 2), manifest("b", 1)])
    alias(engine, "a", "prod", 1)
    alias(engine, "a", "next", 2)
    assert [registry.resolve("denoise", wanted).reference for wanted in ("a", "a@prod", "a@next", "b")] == ["a@1", "a@1", "a@2", "b@1"]
    assert [registry.aliases(found) for found in registry.list()] == [["prod"], ["next"], []]


@pytest.mark.parametrize(
    "wanted",
    ["other", "a@7", "a@0", "a@-1", "a@next", "b@prod", "@1", "@", "a@1@1", "A", "a@²", "a@१", "a@99999999999999999999", "a@" + "9" * 5000],
)
def test_what_no_model_is_called_is_unknown_and_the_answer_lists_what_there_is(wanted: str, registry: Models, engine: Engine) -> None:
    registry.register([manifest("a", 1), manifest("b", 1), manifest("fill", 1, task="inpaint")])
    alias(engine, "a", "prod", 1)
    with pytest.raises(Refused) as refused:
        registry.resolve("denoise", wanted)
    assert refused.value.code == "unknown_model"
    assert refused.value.fields == {"model": "unknown"}
    assert "a@1, b@1" in refused.value.detail
    assert "fill" not in refused.value.detail


def test_a_model_of_another_task_is_unknown(registry: Models) -> None:
    registry.register([manifest("a", 1), manifest("fill", 1, task="inpaint")])
    with pytest.raises(Refused, match="unknown_model"):
        registry.resolve("inpaint", "a@1")


def test_without_any_model_even_the_default_is_unknown(registry: Models) -> None:
    with pytest.raises(Refused, match="none"):
        registry.resolve("denoise", None)


@pytest.mark.parametrize("wanted", [None, "a", "a@1", "a@prod"])
def test_a_version_that_is_not_ready_is_not_served(wanted: str | None, registry: Models, engine: Engine) -> None:
    registry.register([manifest("a", 1)])
    alias(engine, "a", "prod", 1)
    with engine.begin() as connection:
        connection.execute(update(models).values(state="preparing"))
    assert registry.list() == []
    with pytest.raises(Refused, match="unknown_model"):
        registry.resolve("denoise", wanted)
