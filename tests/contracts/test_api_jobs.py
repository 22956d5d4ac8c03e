"""Jobs and results as users see them."""

import base64
import hashlib
import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # jsonschema has no types
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import OperationalError

from api import watch
from api.watch import WAITS
from shared.database.tables import jobs as jobs_table
from shared.database.tables import owners
from shared.jobs.job import Job
from tests.contracts.api_fixtures import Behind, House, code, jpeg, open_house

NOBODY = "0199c0de-0000-7000-8000-000000000000"


@pytest.fixture
def house(tmp_path: Path, database: str) -> Iterator[House]:
    with open_house(tmp_path, database) as opened:
        yield opened


@pytest.fixture(scope="module")
def full_house(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[House]:
    """Seven jobs: three of them bulk, one succeeded, one canceled, the others running."""
    with open_house(tmp_path_factory.mktemp("full"), database) as opened:
        made = [opened.restored(lane="bulk" if n % 3 == 0 else "interactive", label=f"l{n % 2}") for n in range(7)]
        opened.jobs.cancel("local", made[6].id)
        opened.succeed(made[1].id)
        yield opened


def of_another(house: House, job_id: str) -> None:
    with house.engine.begin() as connection:
        connection.execute(insert(owners).values(id="another", created_at=0))
        connection.execute(update(jobs_table).where(jobs_table.c.id == job_id).values(owner_id="another"))


# -- one job ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["queued", "running", "succeeded", "failed", "canceled"])
def test_a_job_in_any_state_is_what_openapi_says(house: House, end: str) -> None:
    job = house.restored()
    if end == "canceled":
        house.jobs.cancel("local", job.id)
    elif end != "queued":
        {"running": house.claim, "succeeded": house.succeed, "failed": house.fail}[end](job.id)
    shown = house.get(f"/v1/jobs/{job.id}").json
    document = house.get("/openapi.json").json
    Draft202012Validator({"$ref": "#/components/schemas/JobView", "components": document["components"]}).validate(shown)
    assert shown["state"] == end
    assert ("result" in shown["links"]) == (end == "succeeded")
    assert ("cancel" in shown["links"]) == (end in ("queued", "running"))
    assert (shown["position"] is None) == (end != "queued")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown["created_at"])
    for link in shown["links"].values():
        assert link.startswith(("/v1/jobs/", "/v1/events?job="))


@pytest.mark.parametrize(
    "path", ["/v1/jobs/{}", "/v1/jobs/{}/result", "POST /v1/jobs/{}/cancel", "POST /v1/jobs/{}/retry", "DELETE /v1/jobs/{}"]
)
def test_what_is_no_uuid_is_a_bad_id_and_what_is_not_ours_is_not_there(house: House, path: str) -> None:
    job = house.restored()
    of_another(house, job.id)
    method, _, path = path.rpartition(" ")
    call = {"POST": house.post, "DELETE": house.delete, "": house.get}[method]
    for bad in ("x", "1", "%00", "..%2f..", "'%20or%201=1", "é", "0" * 4000):
        assert code(call(path.format(bad))) in ("bad_id", "route_not_found")
    assert code(call(path.format("not-a-uuid"))) == "bad_id"
    assert code(call(path.format(NOBODY))) == code(call(path.format(job.id))) == "job_not_found"
    assert house.job(job.id).state == "queued"


def test_an_etag_answers_304_until_the_job_changes(house: House) -> None:
    job = house.restored()
    first = house.get(f"/v1/jobs/{job.id}")
    known = {"If-None-Match": first.headers["ETag"]}
    again = house.get(f"/v1/jobs/{job.id}", headers=known)
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    house.restored()
    assert house.get(f"/v1/jobs/{job.id}", headers=known).status_code == 304
    house.claim(job.id)
    assert house.get(f"/v1/jobs/{job.id}", headers=known).status_code == 200


def test_a_wait_is_answered_when_the_state_changes(house: House) -> None:
    job = house.restored()
    request = Behind(lambda: house.get(f"/v1/jobs/{job.id}?wait=60"))
    house.waiting(1)
    house.claim(job.id)
    assert request.answer().json["state"] == "running"
    request = Behind(lambda: house.get(f"/v1/jobs/{job.id}?wait=60"))
    house.waiting(1)
    house.jobs.cancel("local", job.id)
    assert request.answer().json["state"] == "canceled"


def test_a_wait_for_a_job_that_is_deleted_ends_when_it_is(house: House) -> None:
    job = house.restored()
    request = Behind(lambda: house.get(f"/v1/jobs/{job.id}?wait=60"))
    house.waiting(1)
    with house.engine.begin() as connection:  # canceled and deleted between two looks
        connection.execute(delete(jobs_table).where(jobs_table.c.id == job.id))
    assert code(request.answer()) == "job_not_found"


@pytest.mark.parametrize("within_post", [False, True])
def test_a_job_that_is_deleted_before_its_change_is_read_ends_the_wait(
    house: House, monkeypatch: pytest.MonkeyPatch, within_post: bool
) -> None:
    get = house.jobs.get

    def too_late(job_id: str, owner: str | None = None) -> Job | None:
        if owner is None and threading.current_thread() is request.thread:  # it is the watch that reads
            house.jobs.delete("local", job_id)
        return get(job_id, owner)

    held = {"Prefer": "wait=60"}
    before = None if within_post else house.restored()
    monkeypatch.setattr(house.jobs, "get", too_late)
    monkeypatch.setattr(house.bells, "ring", lambda *_: None)  # it reads the row as well
    request = Behind(lambda: house.restore(headers=held) if before is None else house.get(f"/v1/jobs/{before.id}?wait=60"))
    house.waiting(1)
    (job_id,) = [row.id for row in house.jobs.page("local", {}, 2, None)]
    house.jobs.cancel("local", job_id)
    if within_post:  # it was accepted, whatever became of it
        answer = request.answer()
        assert (answer.status_code, answer.json["id"]) == (202, job_id)
    else:
        assert code(request.answer()) == "job_not_found"


def test_a_wait_ends_in_time_while_the_database_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.restored()
    get = house.jobs.get

    def away(job_id: str, owner: str | None = None) -> Job | None:
        if owner is None:
            raise OperationalError("SELECT", {}, Exception("away"))
        return get(job_id, owner)

    monkeypatch.setattr(house.jobs, "get", away)
    request = Behind(lambda: house.get(f"/v1/jobs/{job.id}?wait=1"))
    house.waiting(1)
    house.jobs.cancel("local", job.id)
    assert request.answer().json["state"] == "queued"


def test_a_wait_for_a_final_job_does_not_wait(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.restored()
    house.jobs.cancel("local", job.id)

    def refuse(*_: object) -> bool:
        raise AssertionError("it waited")

    monkeypatch.setattr(house.ports.watch, "_newer", refuse)
    assert house.get(f"/v1/jobs/{job.id}?wait=60").json["state"] == "canceled"


@pytest.mark.parametrize("query", ["wait=61", "wait=-1", "wait=nan", "wait=inf", "wait=", "wait=x", "wait=1&wait=2", "wait=1e400"])
def test_a_wait_that_cannot_be_is_refused(house: House, query: str) -> None:
    assert code(house.get(f"/v1/jobs/{house.restored().id}?{query}")) == "invalid_field"


def test_more_waiters_than_there_is_room_for_are_answered_at_once(house: House) -> None:
    job = house.restored()
    waiting = [Behind(lambda: house.get(f"/v1/jobs/{job.id}?wait=60")) for _ in range(WAITS)]
    house.waiting(WAITS)
    assert house.get(f"/v1/jobs/{job.id}?wait=60").json["state"] == "queued"
    assert house.restore(headers={"Prefer": "wait=60"}).status_code == 202
    assert all(request.thread.is_alive() for request in waiting)
    house.jobs.cancel("local", job.id)
    assert {request.answer().json["state"] for request in waiting} == {"canceled"}
    house.waiting(0)


def test_cancel_is_final_and_a_second_one_says_so(house: House) -> None:
    job = house.restored()
    running = house.claim(job.id)
    answer = house.post(f"/v1/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.json["state"], sorted(answer.json["links"])) == (200, "canceled", ["delete", "retry", "self"])
    assert house.jobs.keep({(job.id, running.token): (0, 1)}, [], renew=True) == frozenset()
    assert code(house.post(f"/v1/jobs/{job.id}/cancel")) == "already_final"
    assert house.get(f"/v1/jobs/{job.id}").json["state"] == "canceled"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/jobs"), ("GET", "/v1/jobs/{}"), ("GET", "/v1/jobs/{}/result"), ("POST", "/v1/jobs/{}/cancel"), ("GET", "/v1/models"),
     ("POST", "/v1/jobs/{}/retry"), ("DELETE", "/v1/jobs/{}"),
     ("GET", "/v1/models/denoise"), ("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/v1/restorations")],
)  # fmt: skip
def test_a_query_that_means_nothing_is_refused_by_name(full_house: House, method: str, path: str) -> None:
    call = {"GET": full_house.get, "POST": full_house.post, "DELETE": full_house.delete}[method]
    answer = call(path.format(NOBODY) + "?sharpness=3")
    assert code(answer) == "unknown_field"
    assert answer.json["errors"][0]["field"] == "sharpness"


# -- the list -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "count"),
    [("", 7), ("state=running", 5), ("state=succeeded", 1), ("lane=bulk", 3), ("label=l0", 4), ("label=", 0),
     ("task=denoise&kind=restore", 7),
     ("model=denoise@1", 7), ("model=denoise@2", 0), ("model=denoise", 7),
     ("model=denois", 0), ("kind=train", 0), ("lane=bulk&label=l0&state=canceled", 1),
     ("limit=2", 2), ("limit=500", 7)],
)  # fmt: skip
def test_the_list_is_filtered_and_newest_first(full_house: House, query: str, count: int) -> None:
    page = full_house.get(f"/v1/jobs?{query}").json
    ids = [job["id"] for job in page["items"]]
    assert len(ids) == count
    assert ids == sorted(ids, reverse=True)
    assert (page["next"] is not None) == (query == "limit=2")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_walking_the_cursors_gives_each_job_once(full_house: House, limit: int) -> None:
    every = [job["id"] for job in full_house.get("/v1/jobs").json["items"]]
    walked: list[str] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        cursor = f"&cursor={page['next']}" if walked else ""
        page = full_house.get(f"/v1/jobs?limit={limit}{cursor}").json
        assert page["items"]
        walked += [job["id"] for job in page["items"]]
    assert walked == every


def test_the_list_gives_each_job_the_position_that_it_has_by_itself(house: House) -> None:
    jobs = [house.restored(lane=lane) for lane in ("bulk", "interactive", "bulk", "interactive", "interactive")]
    house.jobs.cancel("local", jobs[1].id)
    listed = {job["id"]: job["position"] for job in house.get("/v1/jobs").json["items"]}
    assert listed == {job.id: house.get(f"/v1/jobs/{job.id}").json["position"] for job in jobs}
    assert [listed[job.id] for job in jobs] == [0, None, 1, 0, 1]


def test_the_list_holds_nobody_else_s_jobs(house: House) -> None:
    job = house.restored()
    of_another(house, job.id)
    assert house.get("/v1/jobs").json == {"items": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "state=done",
        "lane=x",
        "kind=x",
        "model=denoise@prod",
        "model=denoise@",
        "state=queued&state=failed",
    ],
)
def test_a_filter_that_cannot_be_is_refused(full_house: House, query: str) -> None:
    assert code(full_house.get(f"/v1/jobs?{query}")) == "invalid_field"


@settings(max_examples=100)
@given(st.one_of(st.text(max_size=40), st.binary(max_size=20).map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
@example("")
@example("AZnA3gAAcACAAAAAAAAAAA==")
@example("AZnA3gAAcACA!AAAAAAAAAA")
@example("\0")
@example("A" * 4000)
def test_a_cursor_is_one_of_ours_or_refused(full_house: House, cursor: str) -> None:
    answer = full_house.get("/v1/jobs", query_string={"cursor": cursor})
    if answer.status_code == 200:
        job_id = uuid.UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
        assert base64.urlsafe_b64encode(job_id.bytes).decode().rstrip("=") == cursor
    else:
        assert code(answer) == "bad_cursor"


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["state", "kind", "task", "model", "lane", "label", "limit", "cursor"]),
        st.one_of(st.text(max_size=20), st.integers().map(str)),
    )
)
def test_no_query_makes_the_list_fail(full_house: House, query: dict[str, str]) -> None:
    assert full_house.get("/v1/jobs", query_string=query).status_code in (200, 400, 422)


# -- the result ---------------------------------------------------------------------------------------------------------


def test_a_result_is_its_bytes_with_their_hash(house: House) -> None:
    job = house.succeed(house.restored(name="scan 7.png").id, b"0123456789")
    answer = house.get(f"/v1/jobs/{job.id}/result")
    digest = hashlib.sha256(b"0123456789")
    assert (answer.status_code, answer.data, answer.content_type, answer.content_length) == (200, b"0123456789", "image/png", 10)
    assert answer.headers["ETag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="scan 7.png"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    head = house.head(f"/v1/jobs/{job.id}/result")
    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])
    assert head.content_length == 10


@pytest.mark.parametrize(
    ("asked", "given"), [("bytes=2-4", b"234"), ("bytes=-3", b"789"), ("bytes=8-", b"89"), ("bytes=0-99", b"0123456789")]
)
def test_a_part_of_a_result_can_be_asked_for(house: House, asked: str, given: bytes) -> None:
    job = house.succeed(house.restored().id, b"0123456789")
    answer = house.get(f"/v1/jobs/{job.id}/result", headers={"Range": asked})
    assert (answer.status_code, answer.data, answer.content_length) == (206, given, len(given))
    assert answer.headers["Content-Range"].endswith("/10")
    changed = house.get(f"/v1/jobs/{job.id}/result", headers={"Range": asked, "If-Range": '"other"'})
    assert (changed.status_code, changed.data) == (200, b"0123456789")


def test_a_part_outside_the_result_is_a_problem(house: House) -> None:
    job = house.succeed(house.restored().id, b"0123456789")
    answer = house.get(f"/v1/jobs/{job.id}/result", headers={"Range": "bytes=10-"})
    assert code(answer) == "range_not_satisfiable"
    assert answer.headers["Content-Range"] == "bytes */10"
    assert "Content-Disposition" not in answer.headers


@pytest.mark.parametrize(
    "asked", ["bytes=", "bytes=x", "bytes=4-2", "lines=1-2", "bytes=0-1,4-5", "bytes=-0", "bytes=99999999999999999999-", "\x7f"]
)
def test_no_range_makes_a_result_fail(house: House, asked: str) -> None:
    job = house.succeed(house.restored().id, b"0123456789")
    answer = house.get(f"/v1/jobs/{job.id}/result", headers={"Range": asked})
    assert answer.status_code in (200, 206, 416)


def test_a_result_you_have_is_answered_with_304(house: House) -> None:
    job = house.succeed(house.restored().id)
    first = house.get(f"/v1/jobs/{job.id}/result")
    again = house.get(f"/v1/jobs/{job.id}/result", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a b.png", "a b.png"), ('a "b" é/../x.png', "x.png"), ("..\\..\\x.png", "x.png"), ("/etc/passwd", "passwd"), ("..", "picture"),
     ("a/", "picture"), (".bashrc", "bashrc"), ('q"u;o=te.png', 'q"u;o=te.png'), ("a\r\nX-Evil: 1.png", "a__X-Evil: 1.png"),
     ("a\0b.png", "a_b.png"), ("\x1b[2J\x85.png", "_[2J_.png")],
)  # fmt: skip
def test_the_name_of_a_result_is_one_name_in_one_header(house: House, name: str, shown: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in name.encode())
    sent = f"--b\r\nContent-Disposition: form-data; name=\"image\"; filename*=UTF-8''{escaped}\r\n\r\n".encode() + jpeg() + b"\r\n--b--\r\n"
    accepted = house.post("/v1/restorations", data=sent, content_type="multipart/form-data; boundary=b")
    assert accepted.json["input"]["name"] == name
    job = house.succeed(accepted.json["id"], kind="image/jpeg")
    answer = house.get(f"/v1/jobs/{job.id}/result")
    assert answer.status_code == 200
    disposition = answer.headers["Content-Disposition"]
    assert "X-Evil" not in answer.headers
    assert re.fullmatch(r'attachment; filename=(?:[\w.-]+|"(?:[ !#-\[\]-~]|\\["\\])*")', disposition)
    given = disposition.removeprefix("attachment; filename=")
    assert (re.sub(r"\\(.)", r"\1", given[1:-1]) if given.startswith('"') else given) == shown


def test_a_name_that_is_not_ascii_is_given_in_both_forms(house: House) -> None:
    job = house.succeed(house.restored(name="é😀.png").id)
    assert house.get(f"/v1/jobs/{job.id}/result").headers["Content-Disposition"] == (
        "attachment; filename=e.png; filename*=UTF-8''%C3%A9%F0%9F%98%80.png"
    )


def test_a_file_whose_format_changed_keeps_its_whole_name(house: House) -> None:
    job = house.succeed(house.restored(picture=jpeg(), name="a.jpg").id, kind="image/png")
    assert house.get(f"/v1/jobs/{job.id}/result").headers["Content-Disposition"] == "attachment; filename=a.jpg.png"
    job = house.succeed(house.restored(name="a.png").id, kind="image/jpeg")
    assert house.get(f"/v1/jobs/{job.id}/result").headers["Content-Disposition"] == "attachment; filename=a.png.jpg"


def test_a_job_without_a_result_says_why(house: House) -> None:
    job = house.restored()
    answer = house.get(f"/v1/jobs/{job.id}/result")
    assert (code(answer), answer.status_code, answer.headers["Retry-After"]) == ("not_ready", 409, "1")
    house.claim(job.id)
    assert code(house.get(f"/v1/jobs/{job.id}/result")) == "not_ready"
    house.jobs.cancel("local", job.id)
    answer = house.get(f"/v1/jobs/{job.id}/result")
    assert (code(answer), answer.status_code) == ("canceled", 410)


@pytest.mark.parametrize("reason", ["image_corrupt", "worker_lost", "out_of_memory", "internal"])
def test_a_failed_job_answers_409_with_its_own_error(house: House, reason: str) -> None:
    job = house.fail(house.restored().id, reason)
    answer = house.get(f"/v1/jobs/{job.id}/result")
    assert (code(answer), answer.status_code) == (reason, 409)
    assert answer.json["detail"] == "Send another."


def test_a_result_whose_file_is_gone_has_expired(house: House) -> None:
    job = house.succeed(house.restored().id)
    house.ports.blobs.delete(str(job.result_key))
    answer = house.get(f"/v1/jobs/{job.id}/result")
    assert (code(answer), answer.status_code) == ("result_expired", 410)


def test_who_waits_is_answered_at_once_when_the_service_stops(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(watch, "stopping", stopping)
    job = house.restored()
    waiter = Behind(lambda: house.get(f"/v1/jobs/{job.id}?wait=60"))
    house.waiting(1)
    stopping.set()
    assert waiter.answer().json["state"] == "queued"


def test_a_database_that_goes_away_after_the_row_was_written_does_not_make_the_job_look_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(house.ports.jobs, "position", away)
    answer = house.restore()
    assert (answer.status_code, answer.json["position"]) == (202, None)
