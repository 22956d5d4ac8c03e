"""What every answer carries, who is answered at all, and the pages that describe the API."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # jsonschema has no types

from shared.errors import CODES
from shared.workers.store import Worker
from tests.contracts.api_fixtures import House, code, open_house

UNSAFE = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://evil.example"}, {"Origin": "http://localhost:81"},
          {"Origin": "ftp://localhost"}, {"Origin": "localhost"}, {"Origin": "https://localhost@evil.example"}, {"Origin": ""},
          {"Origin": "https://localhost", "Sec-Fetch-Site": "cross-site"},
          {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "x"}]  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("pages"), max_upload=100_000, hosts="localhost,[::1],Archive.local") as opened:
        opened.headers["Authorization"] = f"Bearer {opened.ports.keys.make()}"
        yield opened


PATHS = ["/", "/v1/jobs", "/v1/jobs/x", "/v1/models", "/docs", "/openapi.json", "/problems/internal", "/problems/x", "/healthz", "/readyz",
         "/static/page.css", "/static/../app.py", "/static/%2e%2e/app.py", "/static/", "/v1/jobs?x=1",
         "/%00", "/é", "/<script>"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_a_request_id_and_is_harmless_in_a_browser(house: House, path: str) -> None:
    for answer in (house.get(path), house.head(path), house.post(path), house.get(path, headers={"Host": "evil.example"})):
        assert answer.status_code < 500
        assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-Id"])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "no-" in answer.headers["Cache-Control"]
        assert answer.status_code != 200 or b"create_app" not in answer.data


@pytest.mark.parametrize("given", ["abc", "A.b_c-9", "x" * 64])
def test_a_harmless_request_id_comes_back(house: House, given: str) -> None:
    assert house.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given
    assert house.get("/nowhere", headers={"X-Request-Id": given}).json["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>", "a\tb", "é", "a;b", '"', "\x7f"])
def test_any_other_request_id_is_replaced(house: House, given: str) -> None:
    answer = house.get("/nowhere", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] == answer.json["request_id"] != given
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.json["request_id"])


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "localhost.evil.example", "localhost@evil.example", "evil.example:localhost", "", "[::2]", "x" * 5000],
)
def test_a_host_that_is_not_listed_is_refused(house: House, host: str) -> None:
    for answer in (house.get("/healthz", headers={"Host": host}), house.post("/v1/restorations", headers={"Host": host})):
        assert (code(answer), answer.status_code) == ("host_refused", 403)
        assert len(answer.data) < 1_000


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "LocalHost", "[::1]", "[::1]:8080", "archive.local", "Archive.local:80"])
def test_a_listed_host_is_answered_whatever_its_port_and_case(house: House, host: str) -> None:
    assert house.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("headers", UNSAFE)
def test_another_site_can_read_nothing_new_and_change_nothing(house: House, headers: dict[str, str]) -> None:
    answer = house.restore(headers=headers)
    assert (code(answer), answer.status_code) == ("origin_refused", 403)
    assert house.left_behind() == {}
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert house.get("/v1/jobs", headers=headers).status_code == 200


def test_our_own_pages_and_programs_may_change_things(tmp_path: Path) -> None:
    with open_house(tmp_path) as house:
        for headers in ({"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
            assert house.restore(headers=headers).status_code == 202


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8443", "[::1]:8443"])
def test_our_own_pages_may_change_things_also_behind_a_proxy_with_tls(house: House, host: str) -> None:
    seen_by_us = {"Host": host, "Origin": f"https://{host.lower()}", "Sec-Fetch-Site": "same-origin"}  # over plain HTTP
    assert code(house.post("/v1/restorations", headers=seen_by_us)) == "malformed_multipart"


def test_what_is_not_there_is_a_problem(house: House) -> None:
    for path in ("/nowhere", "/v1", "/v1/jobs/", "/problems/nothing", "/static/nothing"):
        answer = house.get(path)
        assert (code(answer), answer.status_code) == ("route_not_found", 404), path
    assert code(house.get("/v1/models/nobody")) == "model_not_found"


@pytest.mark.parametrize(("path", "allowed"), [("/v1/restorations", "POST"), ("/v1/jobs", "GET"), ("/healthz", "GET")])
def test_another_method_is_a_problem_that_names_the_right_ones(house: House, path: str, allowed: str) -> None:
    answer = house.app.test_client().open(path, method="DELETE", headers=house.headers)
    assert (code(answer), answer.status_code) == ("method_not_allowed", 405)
    assert allowed in answer.headers["Allow"]


def test_an_error_we_did_not_foresee_is_a_problem_that_tells_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down() -> None:
        raise RuntimeError("secret of /etc")

    monkeypatch.setattr(house.ports.models, "defaults", break_down)
    answer = house.get("/v1/models")
    assert (code(answer), answer.status_code) == ("internal", 500)
    assert b"secret" not in answer.data


def test_health_and_readiness_tell_degraded_from_down(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert house.get("/healthz").json == {"status": "ok"}
    ready = house.get("/readyz")
    assert (ready.status_code, ready.json) == (200, {"status": "degraded", "parts": {"database": "ok", "blobs": "ok", "redis": "down"}})
    assert house.files() == []

    def away() -> None:
        raise OSError("gone")

    monkeypatch.setattr(house.ports.blobs, "draft", away)
    down = house.get("/readyz")
    assert (down.status_code, down.json["status"], down.json["parts"]["blobs"]) == (503, "down", "down")


def test_models_are_listed_with_their_manifests(house: House) -> None:
    (model,) = house.get("/v1/models").json["items"]
    assert (model["name"], model["version"], model["default"], model["aliases"], model["licence"]) == ("denoise", 1, True, [], "Apache-2.0")
    assert house.get("/v1/models/denoise").json["items"] == [model]


def test_the_system_shows_the_living_workers_and_the_disk(house: House) -> None:
    house.ports.workers.present(Worker("host:1", ["interactive", "bulk"], "openvino", "bfloat16", "cpu"))
    shown = house.get("/v1/system").json
    (worker,) = shown["workers"]
    assert worker | {"started_at": "", "seen_at": ""} == {
        "id": "host:1", "lanes": ["interactive", "bulk"], "executor": "openvino", "precision": "bfloat16", "device": "cpu",
        "started_at": "", "seen_at": "",
    }  # fmt: skip
    assert worker["seen_at"].endswith("Z")
    assert shown["disk"]["free"] > 0
    assert {lane["name"]: lane["paused"] for lane in shown["lanes"]} == {"interactive": None, "bulk": None, "train": None}


def test_the_system_says_that_bulk_and_trainings_wait_for_space(tmp_path: Path) -> None:
    with open_house(tmp_path, min_free=10**18) as house:
        lanes = house.get("/v1/system").json["lanes"]
    assert {lane["name"]: lane["paused"] for lane in lanes} == {"interactive": None, "bulk": "storage_full", "train": "storage_full"}


# -- OpenAPI and pages --------------------------------------------------------------------------------------------------


def test_every_address_is_in_openapi_and_nothing_else(house: House) -> None:
    own = {"static", "openapi", "docs", "problem", "front"}
    rules = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in house.app.url_map.iter_rules() if rule.endpoint not in own for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }  # fmt: skip
    paths = house.get("/openapi.json").json["paths"]
    assert {(path, method) for path, methods in paths.items() for method in methods} == rules


def test_openapi_is_whole(house: House) -> None:
    document = house.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert set(document) == {"openapi", "info", "paths", "components", "security"}
    assert {"title", "version"} <= set(document["info"])
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    for reference in re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', house.get("/openapi.json").text):
        assert reference in document["components"]["schemas"]
    operations = [(path, operation) for path, methods in document["paths"].items() for operation in methods.values()]
    assert len({operation["operationId"] for _, operation in operations}) == len(operations)
    for path, operation in operations:
        parameters = operation.get("parameters", [])
        assert {item["name"] for item in parameters if item["in"] == "path"} == set(re.findall(r"{(\w+)}", path))
        assert len({(item["in"], item["name"]) for item in parameters}) == len(parameters)
        for item in parameters:
            Draft202012Validator.check_schema(item["schema"])
        assert operation["responses"]
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert answer["description"]
            for kind in answer.get("content", {}):
                assert "/" in kind
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]
            assert set(content) <= {"multipart/form-data", "application/json"}
            for body in content.values():
                Draft202012Validator.check_schema(body["schema"])


def test_problems_and_lists_are_what_openapi_says(house: House) -> None:
    document = house.get("/openapi.json").json
    for schema, shown in (
        ("Problem", house.get("/v1/jobs?limit=0").json),
        ("Problem", house.get("/v1/jobs/x").json),
        ("JobPage", house.get("/v1/jobs").json),
        ("ModelPage", house.get("/v1/models").json),
        ("ModelView", house.get("/v1/models/denoise/versions/1").json),
        ("ModelMetricsPage", house.get("/v1/models/denoise/metrics").json),
    ):
        Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": document["components"]}).validate(shown)


@pytest.mark.parametrize("path", ["/docs", *(f"/problems/{name}" for name in CODES)])
def test_a_page_needs_nothing_from_elsewhere_and_its_links_lead_somewhere(house: House, path: str) -> None:
    answer = house.get(path)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert not re.search(r"<script|<style|style=|javascript:|\bon\w+=|//", answer.text.replace("<!doctype html>", ""))
    for link in re.findall(r'(?:href|src)="([^"#]+)"', answer.text) if path != "/docs" else []:
        assert house.get(link).status_code == 200
    if path != "/docs":
        assert CODES[path.rsplit("/", 1)[-1]].title in answer.text.replace("&#39;", "'")


def test_the_page_of_all_addresses_links_only_to_what_there_is(house: House) -> None:
    text = house.get("/docs").text
    links = set(re.findall(r'href="([^"#]+)"', text))
    assert {f"/problems/{name}" for name in CODES} <= links
    assert all(house.get(link).status_code == 200 for link in links)
    assert all(path in text for path in house.get("/openapi.json").json["paths"])


def test_the_front_door_leads_to_the_description(house: House) -> None:
    answer = house.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs")


@pytest.mark.parametrize(
    ("operation", "name", "takes"),
    [
        ("create_restoration", "image", "a file, needed"),
        ("create_restoration", "mask", "a file"),
        ("create_restoration", "task", "denoise, inpaint; denoise unless given"),
        ("create_restoration", "quality", "a whole number from 1 to 100"),
        ("create_restoration", "strength", "a number above 0 to 1"),
        ("create_restoration", "label", "text"),
        ("list_jobs", "limit", "query: a whole number from 1 to 500; 50 unless given"),
        ("list_jobs", "state", "query: queued, running, succeeded, failed, canceled"),
        ("set_alias", "version", "a whole number from 1 to 999999999, needed"),
    ],
)
def test_the_page_says_what_each_field_takes(house: House, operation: str, name: str, takes: str) -> None:
    text = house.get("/docs").text
    section = text[text.index(f'id="{operation}"') :]
    rows = dict(re.findall(r"<tr><th><code>([^<]*)</code><td>([^<]*)<td>", section[: section.index("<h2", 1)]))
    assert rows[name] == takes
