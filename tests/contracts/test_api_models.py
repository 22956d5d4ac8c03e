"""`POST /v1/models`: a model of one's own is accepted whole, refused by name, and known by its state from the first moment."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from api import models
from shared.jobs.job import Lane, Success
from tests.contracts.api_fixtures import Answer, House, code, manifest, open_house

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
