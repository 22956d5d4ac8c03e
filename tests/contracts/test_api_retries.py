"""Doing a job again, and deleting it: each job has what is its own, and nothing else is touched."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from shared.database.tables import jobs as jobs_table
from shared.errors import Outcome
from shared.jobs.job import Job, blob_key
from tests.contracts.api_fixtures import House, code, manifest, open_house, png
from worker.upkeep.sweeper import sweep

WEIGHTS = save({"a": np.ones((2, 3), np.float16)})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "home") as opened:
        yield opened


def end(house: House, job: Job, how: str) -> Job:
    if how == "canceled":
        house.jobs.cancel("local", job.id)
        return house.job(job.id)
    return house.succeed(job.id) if how == "succeeded" else house.fail(job.id)


def added(house: House, **cares: Any) -> Job:
    known = {
        **manifest("mine", 1).model_dump(by_alias=True),
        "weights_sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "parameters": 6,
        **cares,
    }
    files = {"manifest": (io.BytesIO(json.dumps(known).encode()), "m"), "weights": (io.BytesIO(WEIGHTS), "w")}
    answer = house.post("/v1/models", data=files, content_type="multipart/form-data")
    return house.job(answer.json["id"])


@pytest.mark.parametrize("how", ["succeeded", "failed", "canceled"])
def test_a_job_that_has_ended_is_done_again_as_a_new_one_like_it(house: House, how: str) -> None:
    old = end(
        house, house.restored(name="scan.png", label="a", lane="bulk", format="jpeg", speed="best", quality="70", strength="0.5"), how
    )
    answer = house.post(f"/v1/jobs/{old.id}/retry")
    new = answer.json
    assert (answer.status_code, answer.headers["Location"], new["state"]) == (202, f"/v1/jobs/{new['id']}", "queued")
    assert (new["retry_of"], house.get(f"/v1/jobs/{old.id}").json["retry_of"]) == (old.id, None)
    before = house.get(f"/v1/jobs/{old.id}").json
    for field in ("kind", "task", "model", "lane", "label", "input", "params", "owner"):
        assert new[field] == before[field], field
    assert (new["attempts"], new["error"], new["result"]) == (0, None, None)
    assert house.bells.rung[-1] == ("bulk", new["id"])
    assert house.bells.early == []
    again = house.post(f"/v1/jobs/{new['id']}/retry")
    assert code(again) == "not_final"


def test_a_retry_has_a_copy_of_its_own_of_what_was_sent(house: House) -> None:
    picture = png(5, 4)
    old = house.fail(house.restored(picture=picture).id)
    new = house.job(house.post(f"/v1/jobs/{old.id}/retry").json["id"])
    assert new.input["key"] == blob_key(new.id, "upload")
    assert house.delete(f"/v1/jobs/{old.id}").status_code == 204
    assert house.files() == [new.input["key"]]
    with house.ports.blobs.open(new.input["key"]) as file:
        assert file.read() == picture


def test_the_same_retry_with_the_same_key_is_one_job(house: House) -> None:
    old, other = (house.fail(house.restored().id) for _ in range(2))
    key = {"Idempotency-Key": "again"}
    first, second = (house.post(f"/v1/jobs/{old.id}/retry", headers=key) for _ in range(2))
    assert first.json["id"] == second.json["id"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert code(house.post(f"/v1/jobs/{other.id}/retry", headers=key)) == "idempotency_mismatch"
    assert house.post(f"/v1/jobs/{old.id}/retry").json["id"] != first.json["id"]


def test_a_retry_that_is_refused_leaves_nothing_and_its_key_free(house: House) -> None:
    job = house.restored()
    before = house.files(), len(house.bells.rung)
    refused = house.post(f"/v1/jobs/{job.id}/retry", headers={"Idempotency-Key": "again"})
    assert (code(refused), refused.status_code) == ("not_final", 409)
    house.jobs.cancel("local", job.id)
    house.ports.blobs.delete(job.input["key"])
    gone = house.post(f"/v1/jobs/{job.id}/retry", headers={"Idempotency-Key": "again"})
    assert (code(gone), gone.status_code) == ("result_expired", 410)
    assert (house.files(), len(house.bells.rung)) == ([], before[1])
    assert house.count(jobs_table) == 1


def test_a_retry_can_be_waited_for(house: House) -> None:
    old = house.fail(house.restored().id)
    answer = house.post(f"/v1/jobs/{old.id}/retry", headers={"Prefer": "wait=0"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=0")


def test_a_model_that_failed_to_get_ready_is_prepared_again(house: House) -> None:
    old = added(house)
    assert house.jobs.fail(house.claim(old.id), Outcome("internal", "It broke", "Try again.", False))
    new = house.job(house.post(f"/v1/jobs/{old.id}/retry").json["id"])
    assert (new.kind, new.retry_of, new.input["sha256"]) == ("publish", old.id, hashlib.sha256(WEIGHTS).hexdigest())
    model = house.ports.models.get("mine", 1)
    assert model is not None
    assert (model.state, model.job_id, model.weights_key) == ("preparing", new.id, new.input["key"])
    assert model.weights_key != old.input["key"]
    assert code(house.post(f"/v1/jobs/{old.id}/retry")) == "model_exists"
    assert house.files() == sorted([old.input["key"], new.input["key"]])


@pytest.mark.parametrize("how", ["succeeded", "failed", "canceled"])
def test_a_retry_is_offered_for_what_keeps_its_files(house: House, how: str) -> None:
    picture = end(house, house.restored(), how)
    model = end(house, added(house), how)
    offered = [house.get(f"/v1/jobs/{job.id}").json["links"].get("retry") for job in (picture, model)]
    assert offered == [f"/v1/jobs/{picture.id}/retry", None]  # upkeep removes the weights of a model that did not get ready


@pytest.mark.parametrize("how", ["succeeded", "failed", "canceled"])
def test_a_job_that_has_ended_is_deleted_with_all_its_files(house: House, how: str) -> None:
    kept, job = house.succeed(house.restored().id), end(house, house.restored(), how)
    stray = house.ports.blobs.draft()
    stray.place(blob_key(job.id, "result.7"))  # of an attempt that was lost
    answer = house.delete(f"/v1/jobs/{job.id}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert house.files() == sorted([kept.input["key"], str(kept.result_key)])
    assert code(house.get(f"/v1/jobs/{job.id}")) == code(house.delete(f"/v1/jobs/{job.id}")) == "job_not_found"
    assert [listed["id"] for listed in house.get("/v1/jobs").json["items"]] == [kept.id]


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_has_not_ended_is_not_deleted(house: House, state: str) -> None:
    job = house.restored()
    if state == "running":
        house.claim(job.id)
    answer = house.delete(f"/v1/jobs/{job.id}")
    assert (code(answer), answer.status_code) == ("not_final", 409)
    assert (house.job(job.id).state, house.files()) == (state, [job.input["key"]])


def test_a_key_whose_job_was_deleted_makes_no_second_job(house: House) -> None:
    job = house.job(house.restore(headers={"Idempotency-Key": "once"}).json["id"])
    house.jobs.cancel("local", job.id)
    house.delete(f"/v1/jobs/{job.id}")
    assert code(house.restore(headers={"Idempotency-Key": "once"})) == "job_not_found"


def test_a_delete_that_dies_in_its_middle_leaves_no_row_without_its_files(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.succeed(house.restored().id)

    def dies(_: str) -> list[str]:
        assert house.jobs.get(job.id) is None, "the files go while a row still names them"
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(house.ports.blobs, "owned", dies)
        with pytest.raises(SystemExit):
            house.delete(f"/v1/jobs/{job.id}")
    assert len(house.files()) == 2
    sweep(house.jobs, house.ports.models, house.ports.datasets, house.ports.blobs, grace_seconds=-1)
    assert house.files() == []


def test_a_download_under_way_ends_well_when_its_job_is_deleted(house: House) -> None:
    data = bytes(range(256)) * 4096
    job = house.succeed(house.restored().id, data)
    answer = house.app.test_client().get(f"/v1/jobs/{job.id}/result")
    chunks = answer.iter_encoded()
    first = next(iter(chunks))
    assert house.delete(f"/v1/jobs/{job.id}").status_code == 204
    assert first + b"".join(chunks) == data
    answer.close()


def test_deleting_the_job_of_a_model_leaves_the_model(house: House) -> None:
    job = added(house)
    house.jobs.cancel("local", job.id)
    assert house.delete(f"/v1/jobs/{job.id}").status_code == 204
    assert house.ports.models.get("mine", 1) is not None


def test_cancel_in_each_final_state_says_that_it_has_ended(house: House) -> None:
    for how in ("succeeded", "failed", "canceled"):
        job = end(house, house.restored(), how)
        assert code(house.post(f"/v1/jobs/{job.id}/cancel")) == "already_final"
        assert house.job(job.id) == job
