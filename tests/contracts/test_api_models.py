"""Models: one's own is accepted whole or refused by name; each is read by version; one's own is deleted when nothing names it."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from uuid_utils import uuid7

from api import models
from shared.jobs.job import Kind, Lane, NewJob, Success
from tests.contracts.api_fixtures import Answer, House, code, manifest, open_house
from worker.upkeep.sweeper import sweep

WEIGHTS = save({"a": np.ones((2, 3), np.float16)})
URL = "/v1/models"


@pytest.fixture
def house(tmp_path: Path, database: str) -> Iterator[House]:
    with open_house(tmp_path / "home", database) as opened:
        yield opened


def described(weights: bytes = WEIGHTS, **cares: Any) -> dict[str, Any]:
    known = manifest("mine", 1).model_dump(by_alias=True)
    return {**known, "weights_sha256": hashlib.sha256(weights).hexdigest(), "parameters": 6, **cares}


def add(house: House, given: Any = None, weights: bytes | None = WEIGHTS, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    text = given if isinstance(given, bytes) else json.dumps(given or described()).encode()
    data: dict[str, Any] = {"manifest": (io.BytesIO(text), "manifest.json"), **fields}
    if weights is not None:
        data["weights"] = (io.BytesIO(weights), "weights.safetensors")
    return house.post(URL, data=data, headers=headers, content_type="multipart/form-data")


def test_an_added_model_is_a_job_of_the_train_lane_and_a_model_in_preparation(house: House) -> None:
    answer = add(house)
    assert answer.status_code == 202, answer.text
    job = answer.json
    assert (job["kind"], job["lane"], job["state"], job["model"]) == ("publish", "train", "queued", "mine@1")
    assert job["input"] == {
        "name": "mine@1", "bytes": len(WEIGHTS), "sha256": hashlib.sha256(WEIGHTS).hexdigest(), "format": "SAFETENSORS",
        "width": None, "height": None, "mode": None, "bits": None, "mask": None, "reference": None,
    }  # fmt: skip
    assert house.bells.rung == [("train", job["id"])]
    (model,) = house.get(f"{URL}/mine").json["items"]
    assert (model["state"], model["job"]) == ("preparing", job["id"])
    assert code(house.restore(model="mine")) == "unknown_model"
    assert code(house.get(f"/v1/jobs/{job['id']}/result")) == "no_result"


def test_once_its_job_succeeded_pictures_are_restored_with_it(house: House) -> None:
    job_id = add(house).json["id"]
    (job,) = house.jobs.claim("worker", [Lane.TRAIN], 1, True)
    result = {
        "bytes": 1, "sha256": "0" * 64, "type": "application/x-tar", "exporter": "1", "difference": 1e-7, "halo": 8, "tiled_psnr": 80.0,
        "inexpressible": None, "seconds": 3.2,
    }  # fmt: skip
    assert house.jobs.succeed([Success(job, result, "key", [])])
    seen = house.get(f"/v1/jobs/{job_id}").json
    assert seen["result"] == result
    assert set(seen["links"]) == {"self", "delete"}
    assert house.get(f"{URL}/mine").json["items"][0]["state"] == "ready"
    assert house.restored(model="mine").model == "mine@1"


def test_the_same_key_adds_it_once(house: House) -> None:
    first, second = (add(house, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert second.headers["Idempotent-Replayed"] == "true"
    assert first.json["id"] == second.json["id"]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no weights": ({"weights": None}, "invalid_field", "weights"),
    "a field": ({"name": "other"}, "unknown_field", "name"),
    "a manifest that is no JSON": ({"given": b"{"}, "artifact_invalid", "manifest"),
    "a manifest that is too large": ({"given": described(licence="x" * 10_000)}, "artifact_invalid", "manifest"),
    "a manifest without a name": ({"given": {k: v for k, v in described().items() if k != "name"}}, "artifact_invalid", "manifest"),
    "a name that is a path": ({"given": described(name="../mine")}, "artifact_invalid", "manifest"),
    "a number that is none": ({"given": json.dumps(described(metrics={"x": float("nan")})).encode()}, "artifact_invalid", "manifest"),
    "a manifest that is deep": ({"given": b"[" * 9_000}, "artifact_invalid", "manifest"),
    "a field of the manifest that we do not know": ({"given": described(code="import os")}, "artifact_invalid", "manifest"),
    "a version below one": ({"given": described(version=0)}, "artifact_invalid", "manifest"),
    "a version beyond the column": ({"given": described(version=10**12)}, "artifact_invalid", "manifest"),
    "weights that the manifest does not name": ({"given": described(weights_sha256="0" * 64)}, "artifact_invalid", "weights"),
    "weights that are none": ({"weights": b"PK\3\4" * 9, "given": described(b"PK\3\4" * 9)}, "artifact_invalid", "weights"),
    "fewer parameters than said": ({"given": described(parameters=7)}, "artifact_invalid", "weights"),
    "a shipped model's name": ({"given": described(name="denoise", version=2)}, "model_exists", ""),
}


@pytest.mark.parametrize("how", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_a_model_is_refused_by_field_and_leaves_nothing(
    house: House, how: tuple[dict[str, Any], str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "LARGEST_MANIFEST", 10_000)
    options, expected, where = how
    for headers in ({}, {"Idempotency-Key": "k"}):
        answer = add(house, headers=headers, **options)
        assert code(answer) == expected
        assert [error["field"] for error in answer.json.get("errors", [])] == ([where] if where else [])
    assert house.left_behind() == {}
    assert code(house.get(f"{URL}/mine")) == "model_not_found"


def test_a_version_that_is_there_is_not_replaced(house: House) -> None:
    assert add(house).status_code == 202
    files = house.files()
    answer = add(house, described(licence="another"))
    assert code(answer) == "model_exists"
    assert answer.status_code == 409
    assert house.files() == files


# -- reading ------------------------------------------------------------------------------------------------------------

EVALUATIONS = [
    {"protocol": "p", "set": "cbsd68", "rows": [{"sigma": 25.0, "psnr": 31.5, "ssim": 0.89, "input": {"psnr": 20.2}, "images": 68}]},
    {
        "protocol": "q",
        "set": "kodak",
        "rows": [{"holes": "strokes", "psnr": 40.0, "hole": {"psnr": 25.0, "ssim": 0.5, "mse": 9.0}}, {"holes": "boxes", "psnr": 30.0}],
    },
]


def test_one_version_is_what_the_list_says_of_it(house: House) -> None:
    house.publish("mine", 7)
    (listed,) = house.get(f"{URL}/mine").json["items"]
    assert house.get(f"{URL}/mine/versions/7").json == listed
    for version in ("8", "0", "-1", "x", "7.0", "²", "9" * 40):
        for path in ("", "/metrics", "/card"):
            assert code(house.get(f"{URL}/mine/versions/{version}{path}")) == "model_not_found", version + path
        assert code(house.delete(f"{URL}/mine/versions/{version}")) == "model_not_found", version


def test_the_metrics_of_a_version_are_its_manifests_rows_with_all_they_hold(house: House) -> None:
    house.publish("mine", 1, metrics={"evaluations": EVALUATIONS})
    house.publish("mine", 2, metrics={"evaluations": EVALUATIONS[:1]})
    first = {"model": "mine@1", "protocol": "p", "set": "cbsd68", "job": None, **EVALUATIONS[0]["rows"][0]}  # type: ignore[dict-item]
    rows = house.get(f"{URL}/mine/versions/1/metrics").json
    assert (rows["items"][0], rows["next"]) == (first, None)
    assert [(row["set"], row["holes"], row["psnr"]) for row in rows["items"][1:]] == [("kodak", "strokes", 40.0), ("kodak", "boxes", 30.0)]
    of_all = house.get(f"{URL}/mine/metrics").json["items"]
    assert [row["model"] for row in of_all] == ["mine@1"] * 3 + ["mine@2"]
    assert house.get(f"{URL}/denoise/versions/1/metrics").json["items"] == []
    assert code(house.get(f"{URL}/nobody/metrics")) == "model_not_found"


def evaluated(house: House, models: list[str], psnr: float, label: str) -> str:
    """An evaluation that has succeeded, with a mean and one picture of each model."""
    dataset_id, job_id = str(uuid7()), str(uuid7())
    new = NewJob(
        id=job_id, owner_id="local", kind=Kind.EVALUATE, lane=Lane.TRAIN, task="denoise", model_name="mine", model_version=1, pixels=1,
        input={"name": label, "bytes": 0, "sha256": None, "format": "DATASET", "dataset": dataset_id, "models": models},
        params={"models": models}, max_attempts=3, request_id="request",
    )  # fmt: skip
    house.jobs.accept(new)
    job = house.claim(job_id)
    of = [*models, "input"]
    rows = [{"of": one, "picture": picture, "protocol": "σ 25: p", "psnr": psnr} for picture in (None, "a.png") for one in of]
    assert house.jobs.record(job, {}, None, rows, anew=True)
    assert house.jobs.succeed([Success(job, {"bytes": 0, "seconds": 0.1}, None, [])])
    return job_id


def test_what_evaluations_found_stands_behind_what_the_manifest_tells(house: House) -> None:
    house.publish("mine", 1, metrics={"evaluations": EVALUATIONS[:1]})
    house.publish("mine", 2)
    first = evaluated(house, ["mine@1", "mine@2"], 30.5, "holiday")
    second = evaluated(house, ["mine@1"], 29.5, "scans")
    (told, *measured) = house.get(f"{URL}/mine/versions/1/metrics").json["items"]
    assert (told["set"], told["job"]) == ("cbsd68", None)
    seen = [[row[name] for name in ("model", "protocol", "set", "job", "psnr", "ssim")] for row in measured]
    assert seen == [["mine@1", "σ 25: p", "holiday", first, 30.5, None], ["mine@1", "σ 25: p", "scans", second, 29.5, None]]
    of_all = house.get(f"{URL}/mine/metrics").json["items"]
    assert [(row["model"], row["psnr"]) for row in of_all] == [("mine@1", 31.5), ("mine@1", 30.5), ("mine@1", 29.5), ("mine@2", 30.5)]


@pytest.mark.parametrize(
    "odd",
    [
        {"evaluations": 7}, {"evaluations": [7, {"rows": 7}, {"rows": [7, None]}]}, {"evaluations": {"rows": []}}, {"else": 1},
        {"evaluations": [{"rows": [{"psnr": "high", "sigma": [1], "model": 4, "input": 3}], "protocol": 5, "set": None}]},
        {"evaluations": [{"rows": [{"psnr": True, "a|b\n# c": "x|y\n# z"}], "protocol": "<b>\u202e\x1b[31m", "set": "\ud800"}]},
    ],
)  # fmt: skip
def test_metrics_and_card_of_a_manifest_of_another_form_are_answered_all_the_same(house: House, odd: dict[str, Any]) -> None:
    house.publish("mine", metrics=odd, recipe={"a": "\ud800\x1b[31m`"}, licence="x\n# y", base="\ud800", architecture="|")
    rows = house.get(f"{URL}/mine/versions/1/metrics")
    card = house.get(f"{URL}/mine/versions/1/card")
    assert (rows.status_code, card.status_code) == (200, 200)
    assert all(row["model"] == "mine@1" for row in rows.json["items"])
    headings = [line for line in card.text.splitlines() if line.startswith("#")]
    assert headings == ["# mine@1", "## Quality", "## Data", "## Recipe"], "what a manifest holds became markup"
    assert not {"\x1b", "\u202e"} & set(card.text)


def test_the_card_tells_what_a_model_is_and_how_good_and_on_what_terms(house: House) -> None:
    data = [{"name": "clic", "sha256": "1" * 64, "images": 34, "terms": "Unsplash License"}]
    house.publish(
        "mine",
        metrics={"evaluations": EVALUATIONS},
        data=data,
        recipe={"steps": 6000, "loss": "l1", "base_recipe": {"steps": 9}},
        base="denoise@1",
        licence="CC0-1.0",
    )
    answer = house.get(f"{URL}/mine/versions/1/card")
    assert answer.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    lines = [" ".join(line.split()) for line in answer.text.splitlines()]
    for line in (
        "# mine@1", "- Task: denoise", "- Architecture: none", "- Parameters: 6", "- Trained from: denoise@1",
        "- Licence: CC0-1.0",
        "On cbsd68: p.", "| σ | images | PSNR (dB) | SSIM | PSNR (dB) of the input |", "| 25 | 68 | 31.50 | 0.8900 | 20.20 |",
        "On kodak: q.",
        "| holes | PSNR (dB) | PSNR (dB) of the hole | SSIM of the hole |", "| strokes | 40.00 | 25.00 | 0.5000 |",
        "| boxes | 30.00 | – | – |",
        "| clic | 34 | Unsplash License |", "| Training | 1 | 2 |",
        "| steps | 9 | 6000 |", "| loss | – | l1 |",
    ):  # fmt: skip
        assert line in lines, f"{line} is not in\n{answer.text}"


def test_the_shipped_models_have_cards(tmp_path: Path) -> None:
    with open_house(tmp_path / "home", shipped=True) as house:
        denoise, classic = (house.get(f"{URL}/{name}/versions/1/card").text for name in ("denoise", "inpaint-classic"))
    assert "1 063 776" in denoise
    assert "33.55" in denoise
    assert "Unsplash License" in denoise
    assert "a classical method" in classic
    assert "No evaluation is recorded." in classic
    assert "It learnt from no pictures." in classic


# -- deleting -----------------------------------------------------------------------------------------------------------

MINE = f"{URL}/mine/versions/1"


def refused(house: House, path: str = MINE) -> str:
    """Why a version is not deleted, which is then all there."""
    files, answer = house.files(), house.delete(path)
    assert (code(answer), answer.status_code) == ("in_use", 409)
    assert house.get(path).status_code == 200
    assert house.files() == files
    return str(answer.json["detail"])


def test_a_deleted_version_is_gone_with_its_files_and_its_jobs_still_name_it(house: House) -> None:
    publishing = house.publish("mine")
    house.publish("mine", 2)
    job = house.succeed(house.restored(model="mine@1").id)
    others = [path for path in house.files() if house.ports.models.get("mine", 1).id not in path]  # type: ignore[union-attr,operator]
    answer = house.delete(MINE)
    assert (answer.status_code, answer.data) == (204, b"")
    assert house.files() == others
    assert [item["version"] for item in house.get(f"{URL}/mine").json["items"]] == [2]
    assert code(house.get(MINE)) == code(house.delete(MINE)) == "model_not_found"
    assert code(house.restore(model="mine@1")) == "unknown_model"
    assert house.get(f"/v1/jobs/{job.id}").json["model"] == "mine@1"
    assert house.get(f"/v1/jobs/{job.id}/result").status_code == 200
    assert [found["id"] for found in house.get("/v1/jobs?model=mine@1").json["items"]] == [job.id, publishing.id]
    before = house.files(), len(house.bells.rung)
    for old in (job, publishing):
        again = house.post(f"/v1/jobs/{old.id}/retry", headers={"Idempotency-Key": "again"})
        assert (code(again), again.status_code) == ("unknown_model", 422)
    assert (house.files(), len(house.bells.rung)) == before


def test_what_names_a_version_keeps_it_and_is_told(house: House) -> None:
    house.publish("mine")
    house.put(f"{URL}/mine/aliases/prod", json={"version": 1})
    house.put(f"{URL}/defaults/denoise", json={"model": "mine@1"})
    jobs = [house.restored(model="mine@1").id for _ in range(5)]
    house.claim(jobs[0])
    detail = refused(house)
    assert "the alias prod, the default of denoise, " + ", ".join(f"the job {job}" for job in jobs[:3]) + ", other jobs." in detail
    house.delete(f"{URL}/mine/aliases/prod")
    house.delete(f"{URL}/defaults/denoise")
    for job in jobs[2:]:
        house.jobs.cancel("local", job)
    assert refused(house).endswith(f"mine@1: the job {jobs[0]}, the job {jobs[1]}.")
    for job in jobs[:2]:
        house.jobs.cancel("local", job)
    assert house.delete(MINE).status_code == 204


def test_a_version_in_preparation_is_kept_by_its_job(house: House) -> None:
    job = add(house).json["id"]
    assert refused(house).endswith(f"the job {job}.")
    house.jobs.cancel("local", job)
    assert house.delete(MINE).status_code == 204
    assert house.files() == []
    assert code(house.post(f"/v1/jobs/{job}/retry")) == "unknown_model"
    assert add(house).status_code == 202, "a version that was never ready gives its name away"


def test_what_comes_with_lacuna_stays(house: House) -> None:
    assert "denoise@1 comes with Lacuna" in refused(house, f"{URL}/denoise/versions/1")


def test_the_number_of_a_version_that_was_ready_is_not_used_again(house: House) -> None:
    house.publish("mine")
    assert house.delete(MINE).status_code == 204
    again = add(house, described(licence="another"))
    assert (code(again), "was deleted" in again.json["detail"]) == ("model_exists", True)
    assert house.files() == []
    assert add(house, described(version=2)).status_code == 202


def test_a_delete_that_dies_in_its_middle_leaves_files_that_upkeep_takes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.publish("mine")

    def dies(_: str) -> list[str]:
        assert house.ports.models.get("mine", 1) is None, "the files go while a row still names them"
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(house.ports.blobs, "owned", dies)
        with pytest.raises(SystemExit):
            house.delete(MINE)
    assert len(house.files()) == 2
    sweep(house.jobs, house.ports.models, house.ports.datasets, house.ports.blobs, grace_seconds=-1)
    assert house.files() == []


def test_a_picture_that_comes_while_its_model_is_deleted_is_refused_and_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.publish("mine")
    resolve = house.ports.models.resolve

    def resolved(*given: Any) -> Any:
        found = resolve(*given)
        assert house.delete(MINE).status_code == 204  # after its name became a version, before its row is there
        return found

    monkeypatch.setattr(house.ports.models, "resolve", resolved)
    assert code(house.restore(model="mine@1")) == "unknown_model"
    assert house.files() == []
