"""Batches over HTTP: pictures are sent into one, counted, listed and stopped together, and each keeps its own fate."""

import csv
import functools
import hashlib
import io
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from shared.batches.batch import Counts
from shared.batches.store import FORGOTTEN_MS
from shared.database.tables import batches as batches_table
from shared.database.tables import jobs as jobs_table
from shared.errors import Outcome
from shared.jobs.job import Job, Lane, State
from tests.contracts.api_fixtures import Answer, Behind, House, code, open_house, png
from tests.contracts.serving import worker_of
from tests.promises import wiring

URL = "/v1/batches"


@pytest.fixture
def house(tmp_path: Path, database: str) -> Iterator[House]:
    with open_house(tmp_path, database) as opened:
        yield opened


def opened(house: House, **body: Any) -> str:
    answer = house.post(URL, json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == answer.json["links"]["self"] == f"{URL}/{answer.json['id']}"
    return str(answer.json["id"])


def sent(house: House, batch: str, *paths: str, **fields: Any) -> list[Job]:
    return [house.restored(batch=batch, path=path, **fields) for path in paths]


def seen(house: House, batch: str) -> dict[str, Any]:
    answer = house.get(f"{URL}/{batch}")
    assert answer.status_code == 200, answer.text
    counts = answer.json["counts"]
    assert counts["total"] == sum(count for name, count in counts.items() if name != "total")
    return dict(answer.json)


def told(house: House, batch: str) -> dict[str, int]:
    return {name: count for name, count in seen(house, batch)["counts"].items() if count}


def move(house: House, batch: str, name: str) -> Answer:
    return house.post(f"{URL}/{batch}/{name}")


def test_pictures_of_a_batch_are_bulk_jobs_that_name_it_and_are_counted_by_what_became_of_them(house: House) -> None:
    batch = opened(house, label="holiday")
    assert (seen(house, batch)["state"], seen(house, batch)["label"], told(house, batch)) == ("open", "holiday", {})
    first, second, third, _ = sent(house, batch, "a.png", "sub/b.png", "sub/c.png", "d ü.png")
    assert [(job.batch_id, job.path, job.lane) for job in (first, second)] == [(batch, "a.png", "bulk"), (batch, "sub/b.png", "bulk")]
    house.succeed(first.id)
    house.fail(second.id)
    house.post(f"/v1/jobs/{third.id}/cancel")
    assert told(house, batch) == {"total": 4, "running": 1, "succeeded": 1, "failed": 1, "canceled": 1}
    shown = house.get(f"/v1/jobs/{first.id}").json
    assert (shown["batch"], shown["path"]) == (batch, "a.png")
    assert {job["id"] for job in house.get(f"/v1/jobs?batch={batch}").json["items"]} >= {first.id, second.id}


def test_the_same_request_with_the_same_key_is_one_batch(house: House) -> None:
    key = {"Idempotency-Key": "night"}
    first, again = (house.post(URL, json={"label": "a"}, headers=key) for _ in range(2))
    assert (first.json["id"], again.status_code) == (again.json["id"], 201)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert code(house.post(URL, json={"label": "b"}, headers=key)) == "idempotency_mismatch"
    assert code(house.restore(headers=key)) == "idempotency_mismatch"
    assert len(house.get(URL).json["items"]) == 1
    assert code(house.post(URL, json={"label": 1}, headers={"Idempotency-Key": "other"})) == "invalid_field"
    assert house.post(URL, json={}, headers={"Idempotency-Key": "other"}).status_code == 201, "a refused request kept its key"


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
def test_a_lane_that_was_asked_for_is_taken(house: House, lane: str) -> None:
    (job,) = sent(house, opened(house), "a.png", lane=lane)
    assert job.lane == lane


def test_a_batch_ends_with_its_last_picture_once_it_is_sealed(house: House) -> None:
    batch = opened(house)
    first, second = sent(house, batch, "a", "b")
    house.succeed(first.id)
    assert house.ports.batches.finish() == []
    house.succeed(second.id)
    assert house.ports.batches.finish() == [], "an open batch ended"
    assert move(house, batch, "seal").json["state"] == "succeeded", "it did not end although all had"
    assert seen(house, batch)["finished_at"]
    other = opened(house)
    (third,) = sent(house, other, "a")
    assert move(house, other, "seal").json["state"] == "running"
    house.fail(third.id)
    assert house.ports.batches.finish() == [other]
    assert house.ports.batches.finish() == []
    assert seen(house, other)["state"] == "completed_with_errors"
    looked_at = opened(house)
    (fourth,) = sent(house, looked_at, "a")
    move(house, looked_at, "seal")
    house.succeed(fourth.id)
    assert seen(house, looked_at)["state"] == "succeeded", "who looks had to wait for upkeep"
    assert move(house, opened(house), "seal").json["state"] == "succeeded", "an empty one has nothing to wait for"


def test_a_sealed_or_canceled_batch_takes_no_more_and_nothing_is_left_of_what_was_sent(house: House) -> None:
    for name in ("seal", "cancel"):
        batch = opened(house)
        sent(house, batch, "a")
        move(house, batch, name)
        before = (house.files(), told(house, batch))
        refused = house.restore(batch=batch, path="b")
        assert (refused.status_code, code(refused)) == (409, "batch_not_open")
        assert (house.files(), told(house, batch)) == before


def test_a_path_in_a_batch_is_one_picture(house: House) -> None:
    batch = opened(house)
    (job,) = sent(house, batch, "sub/a.png")
    files = house.files()
    refused = house.restore(batch=batch, path="sub/a.png")
    assert (refused.status_code, code(refused)) == (409, "path_taken")
    assert job.id in refused.json["detail"]
    assert house.files() == files
    sent(house, batch, "sub/A.png", "sub/a.jpg", "sub/a.png.png")  # none of them is it
    sent(house, opened(house), "sub/a.png")
    again = house.restore(batch=batch, path="new", headers={"Idempotency-Key": "k"})
    replayed = house.restore(batch=batch, path="new", headers={"Idempotency-Key": "k"})
    assert again.json["id"] == replayed.json["id"]


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b", "x" * 4097])
def test_a_path_that_leads_elsewhere_is_refused(house: House, path: str) -> None:
    refused = house.restore(batch=opened(house), path=path)
    assert (refused.status_code, code(refused)) == (422, "invalid_field")
    assert [error["field"] for error in refused.json["errors"]] == ["path"]


@pytest.mark.parametrize("path", ["a b/ü.png", "x" * 250 + ".png", "…/...", "a\\b", "con", "=1+1.png", "new\nline"])
def test_any_name_that_a_file_system_has_is_a_path(house: House, path: str) -> None:
    batch = opened(house)
    sent(house, batch, path)
    assert [item["path"] for item in house.get(f"{URL}/{batch}/items").json["items"]] == [path]


def test_batch_and_path_belong_together_and_the_batch_is_one_s_own(house: House) -> None:
    assert code(house.restore(batch=opened(house))) == "invalid_field"
    assert code(house.restore(path="a")) == "invalid_field"
    assert code(house.restore(batch="x", path="a")) == "bad_id"
    assert code(house.restore(batch=str(uuid.uuid4()), path="a")) == "batch_not_found"
    assert house.files() == []
    for path in ("", "/items", "/manifest"):
        assert code(house.get(f"{URL}/{uuid.uuid4()}{path}")) == "batch_not_found"
        assert code(house.get(f"{URL}/x{path}")) == "bad_id"
    for name in ("seal", "pause", "resume", "cancel"):
        assert code(move(house, str(uuid.uuid4()), name)) == "batch_not_found"


def test_each_sees_their_own_batches(tmp_path: Path, database: str) -> None:
    with open_house(tmp_path, database, hosts=("example.org", "localhost")) as house:
        anna, ben = ({"Authorization": f"Bearer {house.ports.keys.make(name)}"} for name in ("anna", "ben"))
        house.headers = anna
        batch = opened(house)
        sent(house, batch, "a")
        house.headers = ben
        assert house.get(URL).json["items"] == []
        for path in ("", "/items", "/manifest"):
            assert code(house.get(f"{URL}/{batch}{path}")) == "batch_not_found"
        for name in ("seal", "pause", "resume", "cancel"):
            assert code(move(house, batch, name)) == "batch_not_found"
        assert code(house.restore(batch=batch, path="b")) == "batch_not_found"
        house.headers = anna
        assert told(house, batch) == {"total": 1, "waiting": 1}


def claimed(house: House) -> list[str | None]:
    return [job.path for job in house.jobs.claim("w", [Lane.BULK], 10**9, True)]


def test_a_paused_batch_begins_nothing_and_goes_on_where_the_others_are(house: House) -> None:
    batch = opened(house)
    sent(house, batch, "a", "b")
    assert code(move(house, batch, "pause")) == "batch_state", "an open one is sealed first"
    move(house, batch, "seal")
    assert move(house, batch, "pause").json["state"] == "paused"
    assert "resume" in seen(house, batch)["links"]
    assert claimed(house) == []
    others = [house.restored(lane="bulk") for _ in range(30)]
    house.jobs.claim("w", [Lane.BULK], 10**9, True)  # sixteen of them: V has gone on
    assert move(house, batch, "resume").json["state"] == "running"
    claimed_ones, waiting = (
        [job.turn for job in map(house.job, (job.id for job in others)) if (job.state is State.QUEUED) is queued]
        for queued in (False, True)
    )
    mine = [item.job.turn for item in house.ports.batches.items(batch, None, 10, "") if item.job]
    assert min(mine) >= max(claimed_ones), "what waited while it was paused comes before all that others sent meanwhile"
    assert max(mine) < max(waiting), "the batch lost its share"
    assert mine == sorted(mine)
    assert set(claimed(house)) >= {"a", "b"}
    assert code(move(house, batch, "resume")) == "batch_state"


def test_a_batch_whose_pictures_all_ended_while_it_was_paused_ends_when_it_goes_on(house: House) -> None:
    batch = opened(house)
    (job,) = sent(house, batch, "a")
    running = house.claim(job.id)
    move(house, batch, "seal")
    move(house, batch, "pause")
    house.jobs.fail(running, _damaged())
    assert house.ports.batches.finish() == []
    assert move(house, batch, "resume").json["state"] == "completed_with_errors"


def _damaged() -> Outcome:
    return Outcome("image_corrupt", "It is damaged", "Send another.", False)


def test_canceling_a_batch_cancels_all_that_has_not_ended_and_leaves_what_has(house: House) -> None:
    batch = opened(house)
    done, running, *_ = sent(house, batch, "a", "b", "c", "d")
    house.succeed(done.id)
    attempt = house.jobs.get(running.id)
    assert attempt is not None
    assert attempt.state is State.RUNNING, "one group"
    assert move(house, batch, "cancel").json["state"] == "canceled"
    assert told(house, batch) == {"total": 4, "succeeded": 1, "canceled": 3}
    assert not house.jobs.fail(attempt, _damaged()), "an attempt wrote into a canceled job"
    assert code(move(house, batch, "cancel")) == "already_final"
    assert claimed(house) == []
    assert house.get(f"/v1/jobs/{done.id}/result").status_code == 200


def test_a_cancel_that_was_cut_off_in_the_middle_is_finished_by_upkeep(house: House) -> None:
    batch = opened(house)
    sent(house, batch, "a", "b")
    with house.engine.begin() as connection:  # and then its process died
        connection.execute(update(batches_table).values(state="canceled"))
    assert claimed(house) == [], "a canceled batch was worked on"
    house.ports.batches.cancel_rest()
    assert told(house, batch) == {"total": 2, "canceled": 2}


def test_a_batch_to_which_nothing_came_for_a_day_is_sealed(house: House) -> None:
    batch, lately = opened(house), opened(house)
    (job,) = sent(house, batch, "a")
    assert house.ports.batches.seal_forgotten() == 0
    with house.engine.begin() as connection:
        old = update(batches_table).where(batches_table.c.id == batch).values(changed_at=batches_table.c.changed_at - FORGOTTEN_MS - 1)
        connection.execute(old)
    assert house.ports.batches.seal_forgotten() == 1
    house.succeed(job.id)
    house.ports.batches.finish()
    assert (seen(house, batch)["state"], seen(house, lately)["state"]) == ("succeeded", "open")


def test_a_retry_takes_the_place_of_what_failed_and_the_batch_goes_on(house: House) -> None:
    batch = opened(house)
    bad, good = sent(house, batch, "bad", "good")
    house.succeed(good.id)
    assert house.jobs.fail(house.job(bad.id), _damaged())
    move(house, batch, "seal")
    again = house.post(f"/v1/jobs/{bad.id}/retry")
    assert again.status_code == 202, again.text
    assert (again.json["batch"], again.json["path"], again.json["retry_of"]) == (batch, "bad", bad.id)
    assert (seen(house, batch)["state"], seen(house, batch)["finished_at"]) == ("running", None)
    assert told(house, batch) == {"total": 2, "waiting": 1, "succeeded": 1}
    alone = house.post(f"/v1/jobs/{bad.id}/retry")
    assert (alone.status_code, alone.json["batch"]) == (202, None), "it was replaced in its batch already"
    house.succeed(again.json["id"])
    assert house.ports.batches.finish() == [batch]
    assert seen(house, batch)["state"] == "succeeded"
    canceled = opened(house)
    (job,) = sent(house, canceled, "a")
    move(house, canceled, "cancel")
    assert code(house.post(f"/v1/jobs/{job.id}/retry")) == "batch_not_open"


def test_items_come_in_the_order_of_their_paths_and_in_pages(house: House) -> None:
    batch = opened(house)
    jobs = sent(house, batch, "c", "a", "b/x", "d", "b")
    house.succeed(jobs[0].id)
    found, cursor = [], ""
    while cursor is not None:
        page = house.get(f"{URL}/{batch}/items?limit=2{cursor and '&cursor=' + cursor}").json
        found += [item["path"] for item in page["items"]]
        assert len(page["items"]) <= 2
        cursor = page["next"]
    assert found == ["a", "b", "b/x", "c", "d"]
    (done,) = house.get(f"{URL}/{batch}/items?state=succeeded").json["items"]
    assert (done["path"], done["job"], done["links"]["result"]) == ("c", jobs[0].id, f"/v1/jobs/{jobs[0].id}/result")
    assert code(house.get(f"{URL}/{batch}/items?cursor=*")) == "bad_cursor"
    assert code(house.get(f"{URL}/{batch}/items?cursor=_w==")) == "bad_cursor", "no text"
    assert code(house.get(f"{URL}/{batch}/items?cursor=YQBi")) == "bad_cursor", "NUL is in no path"
    assert code(house.get(f"{URL}/{batch}/items?state=lost")) == "invalid_field"


def test_batches_come_newest_first_and_in_pages_with_their_counts(house: House) -> None:
    made = [opened(house, label=str(number)) for number in range(5)]
    sent(house, made[3], "a", "b")
    found, cursor = [], ""
    while cursor is not None:
        page = house.get(f"{URL}?limit=2{cursor and '&cursor=' + cursor}").json
        found += page["items"]
        cursor = page["next"]
    assert [batch["id"] for batch in found] == made[::-1]
    assert [batch["counts"]["waiting"] for batch in found] == [0, 2, 0, 0, 0]
    assert code(house.get(f"{URL}?cursor=AAAA")) == "bad_cursor"


def test_the_manifest_tells_what_became_of_each_and_a_spreadsheet_runs_nothing_of_it(house: House) -> None:
    batch = opened(house)
    names = ["=1+1.png", "+a", "@b", "-c", 'q"u,o.png', "plain.png"]
    jobs = {job.path: job for job in sent(house, batch, *names)}
    figures = {"protocol": "p", **{of: {"psnr": 30.5, "ssim": 0.9, "mse": 1.0, "rmse": 1.0, "mae": 1.0} for of in ("output", "input")}}
    house.succeed(jobs["plain.png"].id, metrics=figures)
    assert house.jobs.fail(house.job(jobs["=1+1.png"].id), _damaged())
    answer = house.get(f"{URL}/{batch}/manifest")
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["path"] for row in rows] == sorted(names)
    plain = next(row for row in rows if row["path"] == "plain.png")
    stored = house.job(jobs["plain.png"].id)
    assert stored.result is not None
    assert (plain["state"], plain["model"], plain["psnr"], plain["error"]) == ("succeeded", "denoise@1", 30.5, None)
    assert (plain["sha256_in"], plain["sha256_out"]) == (stored.input["sha256"], stored.result["sha256"])
    assert next(row for row in rows if row["path"] == "=1+1.png")["error"] == "image_corrupt"
    table = house.get(f"{URL}/{batch}/manifest?format=csv")
    assert table.headers["Content-Type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(table.text)))
    assert [line["path"] for line in lines] == [f"'{name}" if name[0] in "=+@-" else name for name in sorted(names)]
    assert code(house.get(f"{URL}/{batch}/manifest?format=xml")) == "invalid_field"
    empty = opened(house)
    assert house.get(f"{URL}/{empty}/manifest").text == ""
    assert house.get(f"{URL}/{empty}/manifest?format=csv").text.startswith("path,state,job,")


def test_a_manifest_longer_than_a_page_is_whole(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.manifest.PAGE", 2)
    batch = opened(house)
    sent(house, batch, *"abcde")
    assert [json.loads(line)["path"] for line in house.get(f"{URL}/{batch}/manifest").text.splitlines()] == list("abcde")


def test_two_batches_share_a_lane_by_megapixels_however_much_waits_in_one(house: House) -> None:
    large, small = opened(house), opened(house)
    sent(house, large, *(f"{number:02}" for number in range(20)))
    sent(house, small, "a", "b")
    assert sum(path in ("a", "b") for path in claimed(house)) == 2, "who has few waited behind who has many"


def test_a_picture_that_comes_while_its_batch_is_sealed_is_in_it_or_refused_and_never_lost(house: House) -> None:
    for round_ in range(5):
        batch = opened(house)
        sent(house, batch, "first")
        together = threading.Barrier(5)

        def post(number: int, batch: str = batch, together: threading.Barrier = together) -> Answer:
            together.wait()
            return house.restore(png(), batch=batch, path=f"{number}")

        posts = [Behind(functools.partial(post, number)) for number in range(4)]
        together.wait()
        move(house, batch, "seal")
        answers = [behind.answer() for behind in posts]
        accepted = [answer for answer in answers if answer.status_code == 202]
        assert {code(answer) for answer in answers if answer.status_code != 202} <= {"batch_not_open"}, round_
        assert house.ports.batches.counts([batch])[batch] == Counts(waiting=1 + len(accepted))
        assert seen(house, batch)["state"] == "running"


def test_what_is_refused_when_it_is_sent_is_a_failed_item_of_its_batch_until_it_is_sent_well(house: House) -> None:
    batch = opened(house)
    sent(house, batch, "good.png")
    for path, data, expected in (("torn.png", png()[:-9], "image_truncated"), ("text.jpg", b"hello", "unsupported_format")):
        assert code(house.restore(data, batch=batch, path=path)) == expected
        assert code(house.restore(data, batch=batch, path=path)) == expected, "the same again is the same item"
    assert code(house.restore(b"hello", batch=batch, path="good.png")) == "unsupported_format"
    assert told(house, batch) == {"total": 3, "waiting": 1, "failed": 2}, "what is a job stays one"
    items = {item["path"]: item for item in house.get(f"{URL}/{batch}/items?state=failed").json["items"]}
    assert {path: (item["job"], item["error"]["code"], item["links"]) for path, item in items.items()} == {
        "torn.png": (None, "image_truncated", {}), "text.jpg": (None, "unsupported_format", {}),
    }  # fmt: skip
    rows = {row["path"]: row for row in map(json.loads, house.get(f"{URL}/{batch}/manifest").text.splitlines())}
    assert (rows["text.jpg"]["state"], rows["text.jpg"]["job"], rows["text.jpg"]["error"]) == ("failed", None, "unsupported_format")
    assert rows["text.jpg"]["sha256_in"] == hashlib.sha256(b"hello").hexdigest()
    assert "text.jpg" in house.get(f"{URL}/{batch}/manifest?format=csv").text
    sent(house, batch, "torn.png")
    assert told(house, batch) == {"total": 3, "waiting": 2, "failed": 1}
    assert code(house.restore(b"hello", batch=str(uuid.uuid4()), path="x")) == "batch_not_found"
    only_bad = opened(house)
    house.restore(b"hello", batch=only_bad, path="x")
    assert move(house, only_bad, "seal").json["state"] == "completed_with_errors"


def test_all_that_failed_in_a_batch_is_done_again_at_once(house: House) -> None:
    batch = opened(house)
    jobs = sent(house, batch, "a", "b", "c")
    house.restore(b"hello", batch=batch, path="refused")
    move(house, batch, "seal")
    house.fail(jobs[0].id)
    house.fail(jobs[1].id)
    house.succeed(jobs[2].id)
    house.ports.batches.finish()
    assert seen(house, batch)["links"]["retry"]
    answer = move(house, batch, "retry")
    assert (answer.status_code, answer.json["state"]) == (200, "running")
    wiring.work(worker_of(house))
    house.ports.batches.finish()
    assert told(house, batch) == {"total": 4, "succeeded": 3, "failed": 1}, "what was refused must be sent again"
    assert seen(house, batch)["state"] == "completed_with_errors"
    rows = {row["path"]: row for row in map(json.loads, house.get(f"{URL}/{batch}/manifest").text.splitlines())}
    assert rows["a"]["job"] != jobs[0].id
    assert house.job(rows["a"]["job"]).retry_of == jobs[0].id
    house.delete(f"/v1/jobs/{jobs[0].id}")
    assert house.get(f"/v1/jobs/{rows['a']['job']}/result").status_code == 200, "it has a copy of its own of what was sent"
    canceled = opened(house)
    move(house, canceled, "cancel")
    assert move(house, canceled, "retry").status_code == 200, "nothing failed in it"


def test_a_batch_tells_how_fast_it_is_and_how_long_it_will_take(house: House) -> None:
    batch = opened(house)
    jobs = sent(house, batch, *"abcdef")
    assert (seen(house, batch)["rate_per_s"], seen(house, batch)["eta_s"]) == (None, None)
    for number, job in enumerate(jobs[:3]):
        house.succeed(job.id)
        with house.engine.begin() as connection:  # half a second after the one before
            later = batches_table.c.created_at + 1 + 500 * number
            ended = select(later).where(batches_table.c.id == batch).scalar_subquery()
            connection.execute(update(jobs_table).where(jobs_table.c.id == job.id).values(finished_at=ended))
    assert (seen(house, batch)["rate_per_s"], seen(house, batch)["eta_s"]) == (2.0, 1.5)
    for job in jobs[3:]:
        house.post(f"/v1/jobs/{job.id}/cancel")
    assert seen(house, batch)["eta_s"] is None
