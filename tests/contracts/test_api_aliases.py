"""What names mean: aliases that two people can move safely, defaults, and that each owner has their own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.api_fixtures import Answer, Behind, House, code, open_house

PROD = "/v1/models/mine/aliases/prod"
DENOISE = "/v1/models/defaults/denoise"


@pytest.fixture
def house(tmp_path: Path, database: str) -> Iterator[House]:
    with open_house(tmp_path / "home", database) as opened:
        for version in (1, 2, 3):
            opened.publish("mine", version)
        yield opened


@pytest.fixture
def shared(tmp_path: Path, database: str) -> Iterator[House]:
    """With keys: Anna has a model, Ben has none."""
    with open_house(tmp_path / "home", database, hosts="localhost,photos.local") as opened:
        for owner in ("anna", "ben"):
            opened.ports.keys.make(owner)
        opened.publish("mine", headers=of(opened, "anna"))
        yield opened


def of(house: House, owner: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {house.ports.keys.make(owner)}"}


def name(house: House, version: int, path: str = PROD, **headers: str) -> Answer:
    return house.put(path, json={"version": version}, headers={key.replace("_", "-"): value for key, value in headers.items()})


def aliases(house: House, headers: dict[str, str] | None = None) -> dict[str, list[str]]:
    items = house.get("/v1/models", headers=headers).json["items"]
    return {f"{item['name']}@{item['version']}": item["aliases"] for item in items if item["aliases"]}


def test_an_alias_names_a_version_and_moves_and_goes(house: House) -> None:
    answer = name(house, 2)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert (answer.json["version"], answer.json["aliases"]) == (2, ["prod"])
    assert [house.restored(model=model).model for model in ("mine@prod", "mine")] == ["mine@2", "mine@2"]
    assert name(house, 1).headers["ETag"] == '"1"'
    assert (house.restored(model="mine").model, aliases(house)) == ("mine@1", {"mine@1": ["prod"]})
    gone = house.delete(PROD)
    assert (gone.status_code, gone.data) == (204, b"")
    assert (house.restored(model="mine").model, code(house.restore(model="mine@prod"))) == ("mine@3", "unknown_model")
    again = house.delete(PROD)
    assert (code(again), again.status_code) == ("model_not_found", 404)


def test_a_job_stays_with_the_version_that_its_alias_named(house: House) -> None:
    name(house, 1)
    job = house.restored(model="mine@prod")
    name(house, 2)
    assert house.get(f"/v1/jobs/{job.id}").json["model"] == "mine@1"


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ({"If_Match": '"1"'}, True), ({"If_Match": '"2", "1"'}, True), ({"If_Match": "*"}, True), ({"If_None_Match": '"2"'}, True),
        ({"If_Match": '"2"'}, False), ({"If_Match": 'W/"1"'}, False), ({"If_Match": ""}, False), ({"If_None_Match": "*"}, False),
        ({"If_None_Match": 'W/"1"'}, False), ({"If_Match": '"1"', "If_None_Match": '"1"'}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("act", ["move", "remove"])
def test_an_alias_changes_only_from_what_the_request_expects(house: House, headers: dict[str, str], may: bool, act: str) -> None:
    name(house, 1)
    written = {key.replace("_", "-"): value for key, value in headers.items()}
    answer = name(house, 3, **headers) if act == "move" else house.delete(PROD, headers=written)
    if may:
        assert answer.status_code in (200, 204)
        assert aliases(house) == ({"mine@3": ["prod"]} if act == "move" else {})
    else:
        assert (code(answer), answer.status_code) == ("precondition_failed", 412)
        assert "mine@prod names version 1" in answer.json["detail"]
        assert aliases(house) == {"mine@1": ["prod"]}


def test_an_alias_that_is_not_there_matches_nothing_and_can_be_made_only_once(house: House) -> None:
    for headers in ({"If_Match": "*"}, {"If_Match": '"1"'}):
        assert code(name(house, 1, **headers)) == "precondition_failed"
    assert name(house, 1, If_None_Match="*").status_code == 200
    refused = name(house, 2, If_None_Match="*")
    assert (code(refused), aliases(house)) == ("precondition_failed", {"mine@1": ["prod"]})


def test_of_many_who_move_an_alias_from_the_same_version_one_does(house: House) -> None:
    name(house, 1)
    racers = [Behind(lambda version=version: name(house, version, If_Match='"1"')) for version in (2, 3) * 4]  # type: ignore[misc]
    statuses = sorted(racer.answer().status_code for racer in racers)
    assert statuses == [200] + [412] * 7


def test_of_many_who_make_the_same_alias_one_does(house: House) -> None:
    racers = [Behind(lambda: name(house, 1, If_None_Match="*")) for _ in range(8)]
    assert sorted(racer.answer().status_code for racer in racers) == [200] + [412] * 7


@pytest.mark.parametrize(
    ("path", "version", "expected", "field"),
    [
        ("/v1/models/nobody/aliases/prod", 1, "model_not_found", None),
        (PROD, 9, "unknown_model", "version"),
        ("/v1/models/mine/aliases/7", 1, "invalid_field", "alias"),
        ("/v1/models/mine/aliases/Prod", 1, "invalid_field", "alias"),
        ("/v1/models/mine/aliases/" + "a" * 64, 1, "invalid_field", "alias"),
        (PROD, 0, "invalid_field", "version"),
        (PROD, 10**9, "invalid_field", "version"),
    ],
)
def test_an_alias_for_what_is_not_there_or_by_no_name_is_refused(
    house: House, path: str, version: int, expected: str, field: str | None
) -> None:
    answer = name(house, version, path)
    assert code(answer) == expected
    assert [error["field"] for error in answer.json.get("errors", [])] == ([field] if field else [])
    assert aliases(house) == {}


def test_a_version_in_preparation_gets_no_alias_and_is_no_default(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.jobs, "succeed", lambda _: True)  # its job goes on
    house.publish("mine", 4)
    refused = name(house, 4)
    assert code(refused) == "unknown_model"
    assert "mine@4 is preparing; ready are: mine@1, mine@2, mine@3." in refused.json["detail"]
    assert code(house.put(DENOISE, json={"model": "mine@4"})) == "unknown_model"


# -- defaults -----------------------------------------------------------------------------------------------------------


def test_a_default_is_what_jobs_use_that_name_no_model_until_it_goes(house: House) -> None:
    assert house.restored().model == "denoise@1"
    answer = house.put(DENOISE, json={"model": "mine@2"})
    assert (answer.status_code, answer.json["name"], answer.json["version"], answer.json["default"]) == (200, "mine", 2, True)
    assert house.restored().model == "mine@2"
    assert house.put(DENOISE, json={"model": "mine@3"}).status_code == 200
    listed = house.get("/v1/models").json["items"]
    assert [f"{item['name']}@{item['version']}" for item in listed if item["default"]] == ["mine@3"]
    for _ in range(2):
        assert house.delete(DENOISE).status_code == 204
        assert house.restored().model == "denoise@1"


@pytest.mark.parametrize(
    ("task", "model", "expected"),
    [
        ("denoise", "mine@9", "unknown_model"), ("denoise", "nobody@1", "unknown_model"), ("denoise", "mine", "invalid_field"),
        ("denoise", "mine@prod", "invalid_field"), ("inpaint", "mine@1", "model_task"), ("sharpen", "mine@1", "unknown_task"),
    ],
)  # fmt: skip
def test_a_default_that_cannot_be_is_refused(house: House, task: str, model: str, expected: str) -> None:
    assert code(house.put(f"/v1/models/defaults/{task}", json={"model": model})) == expected
    assert house.restored().model == "denoise@1"


def test_there_is_no_default_of_a_task_that_is_none(house: House) -> None:
    assert code(house.delete("/v1/models/defaults/sharpen")) == "unknown_task"


# -- owners -------------------------------------------------------------------------------------------------------------


def test_what_one_owner_sets_changes_nothing_for_another(shared: House) -> None:
    anna, ben = of(shared, "anna"), of(shared, "ben")
    assert shared.put("/v1/models/denoise/aliases/prod", json={"version": 1}, headers=anna).status_code == 200
    assert shared.put(DENOISE, json={"model": "mine@1"}, headers=anna).status_code == 200
    assert (aliases(shared, anna), aliases(shared, ben)) == ({"denoise@1": ["prod"]}, {})
    assert shared.restore(headers=anna).json["model"] == "mine@1"
    assert shared.restore(headers=ben).json["model"] == "denoise@1"
    assert code(shared.restore(headers=ben, model="denoise@prod")) == "unknown_model"
    (seen,) = shared.get("/v1/models", headers=ben).json["items"]
    assert (seen["name"], seen["default"], seen["aliases"]) == ("denoise", True, [])
    for owner in (ben, of(shared, "local")):
        assert shared.delete(DENOISE, headers=owner).status_code == 204
        assert code(shared.delete("/v1/models/denoise/aliases/prod", headers=owner)) == "model_not_found"
    assert shared.restore(headers=anna).json["model"] == "mine@1"


def test_two_owners_have_the_same_alias_and_each_their_own_etag(shared: House) -> None:
    shared.publish("mine", 2, headers=of(shared, "anna"))
    path = "/v1/models/denoise/aliases/prod"
    for owner in ("anna", "ben"):
        answer = shared.put(path, json={"version": 1}, headers={**of(shared, owner), "If-None-Match": "*"})
        assert answer.status_code == 200, owner


def test_another_owners_model_is_not_there(shared: House) -> None:
    ben = of(shared, "ben")
    assert code(shared.put(PROD, json={"version": 1}, headers=ben)) == "model_not_found"
    assert code(shared.put(DENOISE, json={"model": "mine@1"}, headers=ben)) == "unknown_model"
    for path in ("", "/metrics", "/versions/1", "/versions/1/metrics", "/versions/1/card"):
        assert code(shared.get(f"/v1/models/mine{path}", headers=ben)) == "model_not_found", path
        assert shared.get(f"/v1/models/mine{path}", headers=of(shared, "anna")).status_code == 200, path
    assert code(shared.delete("/v1/models/mine/versions/1", headers=ben)) == "model_not_found"
    assert shared.get("/v1/models/mine", headers=of(shared, "anna")).status_code == 200


# -- bodies -------------------------------------------------------------------------------------------------------------

BODIES: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "application/json", "malformed_json"),
    "no JSON": (b"{version: 1}", "application/json", "malformed_json"),
    "a form": (b"version=1", "application/x-www-form-urlencoded", "malformed_json"),
    "JSON that says it is text": (b'{"version": 1}', "text/plain", "malformed_json"),
    "no object": (b"[1]", "application/json", "malformed_json"),
    "no number": (b'{"version": NaN}', "application/json", "invalid_field"),
    "what is deep": (b"[" * 30_000, "application/json", "malformed_json"),
    "no UTF-8": (b'{"version": "\xff"}', "application/json", "malformed_json"),
    "UTF-16": ('{"version": 1}'.encode("utf-16"), "application/json", "malformed_json"),
    "what is long": (b" " * 70_000, "application/json", "upload_too_large"),
    "a field twice": (b'{"version": 1, "version": 2}', "application/json", "invalid_field"),
    "a field that means nothing": (b'{"version": 1, "alias": "x"}', "application/json", "unknown_field"),
    "a number as text": (b'{"version": "1"}', "application/json", "invalid_field"),
    "a truth for a number": (b'{"version": true}', "application/json", "invalid_field"),
    "a field too few": (b"{}", "application/json", "invalid_field"),
}


@pytest.mark.parametrize("how", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_not_what_it_should_be_is_refused(house: House, how: tuple[bytes, str, str]) -> None:
    data, kind, expected = how
    answer = house.put(PROD, data=data, content_type=kind)
    assert code(answer) == expected
    if expected == "upload_too_large":  # the rest of it may still come: nothing else can on that connection
        assert (answer.headers["Connection"], answer.json["detail"]) == ("close", "JSON has at most 64000 bytes here.")
    assert answer.status_code < 500
    assert aliases(house) == {}


def test_another_site_changes_nothing(house: House) -> None:
    ask: Callable[..., Any]
    for ask, path in ((house.put, PROD), (house.put, DENOISE), (house.delete, PROD), (house.delete, "/v1/models/mine/versions/1")):
        answer = ask(path, data=json.dumps({"version": 1}), content_type="application/json", headers={"Origin": "http://elsewhere"})
        assert code(answer) == "origin_refused"
