"""Where others can reach the API it answers the owners of keys, each with what is theirs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.api_fixtures import House, code, open_house


@pytest.fixture
def house(tmp_path: Path, database: str) -> Iterator[House]:
    with open_house(tmp_path, database, hosts="localhost,photos.local") as opened:
        yield opened


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


GUARDED = ["/v1/jobs", "/v1/jobs/x", "/v1/models", "/v1/system", "/readyz", "/docs", "/openapi.json", "/nowhere", "/"]


@pytest.mark.parametrize("path", GUARDED)
def test_without_a_key_nothing_is_told_and_with_a_wrong_one_neither(house: House, path: str) -> None:
    answer = house.get(path)
    assert (code(answer), answer.status_code, answer.headers["WWW-Authenticate"]) == ("key_required", 401, "Bearer")
    for wrong in ("Bearer x", "bearer é"):
        answer = house.get(path, headers={"Authorization": wrong})
        assert (code(answer), answer.status_code) == ("key_refused", 403)
    for none in ("Basic bG9jYWw6", "Bearer", "x"):
        assert code(house.get(path, headers={"Authorization": none})) == "key_required"
    assert house.get(path, headers=bearer(house.ports.keys.make())).status_code not in (401, 403)


@pytest.mark.parametrize("path", ["/healthz", "/problems/key_required", "/static/page.css"])
def test_what_is_nobodys_needs_no_key(house: House, path: str) -> None:
    assert house.get(path).status_code == 200


def test_a_picture_without_a_key_is_refused_before_it_is_received(house: House) -> None:
    assert code(house.restore(headers={"Idempotency-Key": "k"})) == "key_required"
    assert house.left_behind() == {}


def test_each_owner_has_their_own_jobs_and_the_same_idempotency_key_means_two_requests(house: House) -> None:
    anna, ben = bearer(house.ports.keys.make("anna")), bearer(house.ports.keys.make("ben"))
    hers, his = (house.restore(headers={**owner, "Idempotency-Key": "k"}).json for owner in (anna, ben))
    assert (hers["owner"], his["owner"]) == ("anna", "ben")
    assert hers["id"] != his["id"]
    assert [job["id"] for job in house.get("/v1/jobs", headers=anna).json["items"]] == [hers["id"]]
    for path in (his["links"]["self"], his["links"]["self"] + "/result"):
        assert code(house.get(path, headers=anna)) == "job_not_found"
    assert code(house.post(his["links"]["cancel"], headers=anna)) == "job_not_found"
    assert house.get(his["links"]["self"], headers=ben).json["state"] == "queued"


def test_a_revoked_key_opens_nothing_from_then_on(house: House) -> None:
    key = house.ports.keys.make()
    assert house.get("/v1/jobs", headers=bearer(key)).status_code == 200
    house.ports.keys.revoke(house.ports.keys.list()[0].id)
    assert code(house.get("/v1/jobs", headers=bearer(key))) == "key_refused"


def test_a_browser_changes_a_key_for_a_cookie_that_scripts_and_other_sites_do_not_get(house: House) -> None:
    browser = house.app.test_client()
    assert browser.post("/v1/session").status_code == 401
    answer = browser.post("/v1/session", headers=bearer(house.ports.keys.make("anna")))
    assert (answer.status_code, answer.data) == (204, b"")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie
    assert browser.get("/v1/jobs").status_code == 200
    assert house.get("/v1/jobs").status_code == 401, "the cookie is the browser's alone"
    over_tls = house.app.test_client().post("/v1/session", headers=bearer(house.ports.keys.make()), base_url="https://localhost")
    assert "Secure" in over_tls.headers["Set-Cookie"]
    house.ports.keys.revoke(house.ports.keys.list()[0].id)
    assert browser.get("/v1/jobs").status_code == 403


def test_where_only_this_machine_asks_no_key_is_looked_at(tmp_path: Path) -> None:
    with open_house(tmp_path) as alone:
        for headers in ({}, bearer("x"), {"Cookie": "lacuna_key=x"}):
            assert alone.restore(headers=headers).json["owner"] == "local"
            assert "Set-Cookie" not in alone.post("/v1/session", headers=headers).headers
