"""Trainings: what cannot be learnt is refused by name before anything begins; a training is a model in preparation until it ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uuid_utils import uuid7

from shared.datasets.store import Contents
from shared.errors import Outcome
from shared.jobs.job import Job, Kind, Lane, NewJob, State, Success, blob_key, exported_part, weights_part
from shared.models.manifest import Manifest
from tests.contracts.api_fixtures import Answer, House, code, open_house
from worker.upkeep.sweeper import sweep

URL = "/v1/trainings"


@pytest.fixture
def house(tmp_path: Path, database: str) -> Iterator[House]:
    with open_house(tmp_path / "home", database) as opened:
        yield opened


def data_set(house: House, kind: str = "clean", room: int = 512, ready: bool = True) -> str:
    """A data set, as its job left it: pictures with room for a crop of so many pixels."""
    dataset_id, job_id = str(uuid7()), str(uuid7())
    new = NewJob(
        id=job_id, owner_id="local", kind=Kind.INGEST, lane=Lane.BULK, task="", model_name="", model_version=0, params={}, pixels=1,
        max_attempts=3, request_id="request",
        input={"name": "photos", "bytes": 0, "sha256": None, "format": "FOLDER", "dataset": dataset_id},
    )  # fmt: skip
    house.jobs.accept(new, alongside=[house.ports.datasets.ingesting(dataset_id, job_id, "local", kind, "photos")])
    if ready:
        job = house.claim(job_id)
        contents = Contents(
            "2" * 64, 20, 20 * room * room, 60 * room * room, blob_key(dataset_id, "index.1"), blob_key(dataset_id, "pixels.1")
        )
        counts = {"largest_patch": room}
        done = Success(job, {"bytes": 1, "seconds": 0.1}, None, [], alongside=house.ports.datasets.ready(job, contents, counts, counts))
        assert house.jobs.succeed([done])
    return dataset_id


def train(house: House, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    return house.post(URL, json={"name": "mine", "task": "denoise", **fields}, headers=headers)


def accepted(house: House, **fields: Any) -> Job:
    answer = train(house, **{"dataset": data_set(house), **fields})
    assert answer.status_code == 202, answer.text
    return house.job(answer.json["id"])


def finish(house: House, job: Job) -> Job:
    """What an attempt leaves that has succeeded."""
    job = house.claim(job.id)
    model = house.ports.models.get(job.model_name, job.model_version)
    assert model is not None
    assert model.id is not None
    for part in (weights_part(job.token), exported_part(job.token)):
        draft = house.ports.blobs.draft()
        draft.write(b"bytes")
        draft.place(blob_key(model.id, part))
    known = model.manifest.model_dump(by_alias=True) | {"weights_sha256": "3" * 64, "parameters": 7, "metrics": {"evaluations": []}}
    result = {
        "bytes": 5, "sha256": "3" * 64, "type": "application/octet-stream", "model": job.model, "parameters": 7, "steps": 10,
        "exporter": "1", "difference": 1e-7, "halo": 8, "tiled_psnr": 80.0, "inexpressible": None, "seconds": 3.2,
    }  # fmt: skip
    ready = house.ports.models.trained(job.id, Manifest.model_validate(known), blob_key(model.id, weights_part(job.token)))
    assert house.jobs.succeed([Success(job, result, blob_key(model.id, exported_part(job.token)), ["batch_split"], alongside=ready)])
    return house.job(job.id)


def test_a_training_with_nothing_but_name_task_and_data_set_is_a_job_of_the_train_lane(house: House) -> None:
    dataset = data_set(house)
    answer = train(house, dataset=dataset)
    assert answer.status_code == 202, answer.text
    job = answer.json
    assert (job["kind"], job["lane"], job["state"], job["model"]) == ("train", "train", "queued", "mine@1")
    asked = job["params"]
    assert (asked["dataset"], asked["supervision"], asked["architecture"], asked["base"]) == (dataset, "clean", "unet", None)
    assert set(job["links"]) >= {"self", "events", "cancel", "metrics", "artifacts"}
    assert house.bells.rung[-1] == ("train", job["id"])
    (model,) = house.get("/v1/models/mine").json["items"]
    assert (model["state"], model["job"], model["architecture"]) == ("preparing", job["id"], "unet")
    assert house.get(f"/v1/jobs/{job['id']}/metrics").json["items"] == []
    assert house.get(f"/v1/jobs/{job['id']}/artifacts").json["items"] == []


def test_each_training_of_a_name_makes_its_next_version(house: House) -> None:
    dataset = data_set(house)
    assert [train(house, dataset=dataset).json["model"] for _ in range(3)] == ["mine@1", "mine@2", "mine@3"]


def test_a_version_that_was_deleted_never_comes_back(house: House) -> None:
    job = finish(house, accepted(house))
    assert house.delete(f"/v1/models/mine/versions/{job.model_version}").status_code == 204
    assert accepted(house).model == "mine@2"


def test_the_same_key_trains_once(house: House) -> None:
    dataset = data_set(house)
    first, second = (train(house, dataset=dataset, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert second.headers["Idempotent-Replayed"] == "true"
    assert first.json["id"] == second.json["id"]
    assert code(train(house, dataset=dataset, epochs=2, headers={"Idempotency-Key": "k"})) == "idempotency_mismatch"


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a billion epochs": ({"epochs": 10**9}, "invalid_field", "epochs"),
    "no epochs": ({"epochs": 0}, "invalid_field", "epochs"),
    "endless minutes": ({"minutes": 1e9}, "invalid_field", "minutes"),
    "epochs and minutes": ({"epochs": 1, "minutes": 1}, "invalid_field", "minutes"),
    "a learning rate that is a word": ({"learning_rate": "fast"}, "invalid_field", "learning_rate"),
    "a truth as a number": ({"learning_rate": True}, "invalid_field", "learning_rate"),
    "a patch larger than the pictures": ({"patch": 1024}, "invalid_field", "patch"),
    "a patch that is no size": ({"patch": 15}, "invalid_field", "patch"),
    "an unknown architecture": ({"architecture": "gan"}, "invalid_field", "architecture"),
    "an architecture of another task": ({"architecture": "inpaint-unet"}, "invalid_field", "architecture"),
    "a config": ({"config": {"widths": [1]}}, "unknown_field", "config"),
    "an unknown field": ({"learning_rat": 1e-3}, "unknown_field", "learning_rat"),
    "an unknown degradation": ({"degradation": [{"kind": "fog"}]}, "invalid_field", "degradation.0"),
    "a range that falls": ({"degradation": [{"kind": "gaussian", "sigma": [50, 5]}]}, "invalid_field", "degradation.0.gaussian"),
    "no number, in a list": ({"masks": ["\0"]}, "invalid_field", "masks.0"),
    "a patch for which halves have no room": ({"patch": 512, "half_share": 0.5}, "invalid_field", "patch"),
    "noise beyond white": ({"degradation": [{"kind": "gaussian", "sigma": 1000}]}, "invalid_field", "degradation.0.gaussian.sigma.0"),
    "a mask of no kind": ({"masks": ["circles"]}, "invalid_field", "masks.0"),
    "a name that is none": ({"name": "My Model"}, "invalid_field", "name"),
    "another supervision than the pictures are for": ({"supervision": "noisy"}, "invalid_field", "supervision"),
    "a base that is not there": ({"base": "nothing@1"}, "unknown_model", "base"),
    "a base of another task": ({"base": "fill@1"}, "model_task", "base"),
    "an architecture that is not the base's": ({"base": "denoise@1", "architecture": "dncnn"}, "invalid_field", "architecture"),
    "a task that is none": ({"task": "colour"}, "unknown_task", "task"),
    "a data set that is not there": ({"dataset": str(uuid7())}, "unknown_dataset", "dataset"),
    "a name of ours": ({"name": "denoise"}, "model_exists", ""),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_learnt_is_refused_by_name_and_leaves_nothing(house: House, what: str) -> None:
    fields, refusal, field = WRONG[what]
    house.ports.models.register([shipped("denoise", "denoise"), shipped("fill", "inpaint")])
    given = {"dataset": data_set(house), **fields}
    before = house.left_behind()
    answer = train(house, **given)
    assert (code(answer), house.left_behind()) == (refusal, before), answer.text
    assert not field or field in {error["field"] for error in answer.json["errors"]}, answer.text


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused_with_the_name_of_its_field(house: House, word: str) -> None:
    body = f'{{"name": "mine", "task": "denoise", "dataset": "{data_set(house)}", "learning_rate": {word}}}'
    answer = house.post(URL, data=body, content_type="application/json")
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "learning_rate"), answer.text


def test_filling_is_learnt_from_clean_pictures_only(house: House) -> None:
    answer = train(house, task="inpaint", dataset=data_set(house, "noisy"))
    assert (code(answer), answer.json["errors"][0]["field"]) == ("invalid_field", "dataset")
    assert train(house, task="inpaint", dataset=data_set(house)).json["params"]["architecture"] == "inpaint-unet"


def test_a_data_set_that_is_not_ready_is_refused(house: House) -> None:
    assert code(train(house, dataset=data_set(house, ready=False))) == "dataset_not_ready"


def test_a_data_set_and_a_base_in_use_cannot_be_deleted(house: House) -> None:
    house.publish("older", architecture="unet")
    job = accepted(house, base="older@1")
    assert code(house.delete(f"/v1/datasets/{job.input['dataset']}")) == "in_use"
    assert code(house.delete("/v1/models/mine/versions/1")) == "in_use"
    finish(house, job)
    assert house.delete(f"/v1/datasets/{job.input['dataset']}").status_code == 204


def test_a_training_that_succeeded_made_a_model_that_restores(house: House) -> None:
    job = finish(house, accepted(house))
    seen = house.get(f"/v1/jobs/{job.id}").json
    assert (seen["state"], seen["result"]["model"], seen["notes"]) == ("succeeded", "mine@1", ["batch_split"])
    (model,) = house.get("/v1/models/mine").json["items"]
    assert (model["state"], model["parameters"], model["weights_sha256"]) == ("ready", 7, "3" * 64)
    assert house.restored(model="mine").model == "mine@1"
    assert sweep(house.jobs, house.ports.models, house.ports.datasets, house.ports.blobs, 0) == 0
    assert len(house.files()) == 3  # weights, the exported network, the picture that was sent


@pytest.mark.parametrize("how", ["canceled", "failed"])
def test_a_training_that_ended_otherwise_leaves_no_model_and_gives_its_number_away(house: House, how: str) -> None:
    job = accepted(house)
    if how == "canceled":
        assert house.post(f"/v1/jobs/{job.id}/cancel").status_code == 200
    else:
        assert house.jobs.fail(house.claim(job.id), Outcome("training_diverged", "", "", False))
    (model,) = house.get("/v1/models/mine").json["items"]
    assert model["state"] == "failed"
    assert code(house.restore(model="mine")) == "unknown_model"
    assert code(house.post(f"/v1/jobs/{job.id}/retry")) == "not_retried"


def test_what_an_attempt_leaves_is_seen_at_once_and_kept_by_the_sweeper(house: House) -> None:
    job = house.claim(accepted(house).id)
    key = left(house, job, "sample.1", b"a picture")
    artifacts = {"epoch-0001.png": {"key": key, "bytes": 9, "sha256": "4" * 64, "type": "image/png"}}
    rows = [
        {"of": "train", "epoch": 1, "protocol": "p", "loss": 0.25, "seconds": 2.0},
        {"of": "validation", "epoch": 1, "protocol": "p", "psnr": 30.5, "ssim": 0.9, "mse": 50.0, "rmse": 7.0, "mae": 5.0},
        {"of": "opencv-nlm", "picture": "a.png", "protocol": "q", "psnr": 26.0},
    ]
    assert house.jobs.record(job, artifacts, None, rows)
    assert house.job(job.id).version > job.version
    learnt, held_out, classic = house.get(f"/v1/jobs/{job.id}/metrics").json["items"]
    assert (learnt["split"], learnt["epoch"], learnt["loss"], learnt["psnr"]) == ("train", 1, 0.25, None)
    assert (held_out["split"], held_out["psnr"]) == ("validation", 30.5)
    assert (classic["of"], classic["split"], classic["picture"]) == ("opencv-nlm", None, "a.png")
    (listed,) = house.get(f"/v1/jobs/{job.id}/artifacts").json["items"]
    assert (listed["name"], listed["bytes"]) == ("epoch-0001.png", 9)
    fetched = house.get(listed["link"])
    assert (fetched.data, fetched.content_type) == (b"a picture", "image/png")
    assert code(house.get(f"/v1/jobs/{job.id}/artifacts/other.png")) == "artifact_not_found"
    assert house.post(f"/v1/jobs/{job.id}/cancel").status_code == 200
    assert sweep(house.jobs, house.ports.models, house.ports.datasets, house.ports.blobs, 0) == 0
    assert house.get(listed["link"]).data == b"a picture"
    assert house.delete(f"/v1/jobs/{job.id}").status_code == 204
    assert house.files() == []


def test_figures_that_come_again_take_the_place_of_the_same_and_leave_the_others(house: House) -> None:
    job = house.claim(accepted(house).id)

    def row(epoch: int | None, loss: float) -> dict[str, Any]:
        return {"of": "train" if epoch else "input", "epoch": epoch, "protocol": "p", "loss": loss}

    def told() -> list[tuple[int | None, float]]:
        return sorted((one["epoch"] or 0, one["loss"]) for one in house.get(f"/v1/jobs/{job.id}/metrics").json["items"])

    assert house.jobs.record(job, {}, None, [row(1, 0.1), row(2, 0.2)])
    assert house.jobs.record(job, {}, None, [row(2, 0.25), row(3, 0.3)])
    assert house.jobs.record(job, {}, None, [row(None, 9.0)])
    assert house.jobs.record(job, {}, None, [])
    assert told() == [(0, 9.0), (1, 0.1), (2, 0.25), (3, 0.3)]
    assert house.jobs.record(job, {}, None, [row(1, 0.11)], anew=True)
    assert told() == [(1, 0.11)]


def test_an_attempt_that_is_no_longer_ours_records_nothing(house: House) -> None:
    job = house.claim(accepted(house).id)
    assert house.jobs.cancel("local", job.id)
    assert not house.jobs.record(job, {"a.png": {"key": "k", "bytes": 1, "sha256": "0" * 64, "type": "image/png"}}, "k", [])
    assert house.job(job.id).artifacts is None


def test_an_attempt_that_left_a_newer_checkpoint_does_not_count_when_it_is_lost(house: House) -> None:
    job_id = accepted(house).id
    lost = Outcome("worker_lost", "", "", True)
    for number in range(10):  # more than there are attempts
        job = house.claim(job_id)
        assert job.attempts == 1
        assert house.jobs.record(job, {}, f"checkpoint.{number}", [])
        assert house.jobs.retry(job, lost, 0)
        due(house, job_id)
    job = house.claim(job_id)  # nor do those before it, once one goes on
    assert house.jobs.retry(job, lost, 0)
    due(house, job_id)
    job = house.claim(job_id)
    assert job.attempts == 2
    assert house.jobs.record(job, {}, "checkpoint.went on", [])
    assert house.jobs.release(job)
    for attempt in range(1, job.max_attempts + 1):  # and now none goes on
        job = house.claim(job_id)
        assert job.attempts == attempt
        assert house.jobs.retry(job, lost, 0)
        due(house, job_id)
    assert house.job(job_id).state is State.FAILED


def left(house: House, job: Job, part: str, data: bytes) -> str:
    draft = house.ports.blobs.draft()
    draft.write(data)
    draft.place(blob_key(job.id, part))
    return blob_key(job.id, part)


def due(house: House, job_id: str) -> None:
    """Nothing is waited for between attempts."""
    assert house.job(job_id).due_at <= house.jobs.now()


def shipped(name: str, task: str) -> Manifest:
    from tests.contracts.api_fixtures import manifest

    return manifest(name, 1, task).model_copy(update={"architecture": "unet" if task == "denoise" else "inpaint-unet"})
