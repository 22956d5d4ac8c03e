"""What trainings promise, by the real programs: a set of pictures becomes a model that restores; no kill changes what is learnt."""

import io
import os
import random
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from demo.photos import photo
from tests.promises.programs import Home, eventually, home

CHILD = "trainer.running"
PICTURES, SIDE = 12, 96
KILLS = int(os.environ.get("KILLS", "3"))  # one in each epoch: an attempt that is lost before it left a checkpoint counts
EPOCHS, STEPS = KILLS, 15
SHORT = {"epochs": EPOCHS, "steps_per_epoch": STEPS, "batch": 2, "patch": 16, "seed": 7, "validation_share": 0.25}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with home(tmp_path_factory.mktemp("training")) as made:
        made.up()
        yield made


@pytest.fixture(scope="module")
def dataset(service: Home) -> str:
    """Crops of a photo, sent as a zip, checked and ready."""
    photograph = np.asarray(photo("coffee"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for index in range(PICTURES):
            top, left = 20 + index // 4 * (SIDE + 10), 20 + index % 4 * (SIDE + 20)
            made = io.BytesIO()
            Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]).save(made, "PNG")
            file.writestr(f"photos/{index}.png", made.getvalue())
    answer = service.http.post(
        "/v1/datasets", data={"kind": "clean", "label": "coffee"}, files={"archive": ("photos.zip", packed.getvalue())}
    )
    assert answer.status_code == 202, answer.text
    job = service.final(answer.json()["id"])
    assert job["state"] == "succeeded", job["error"]
    (found,) = service.http.get("/v1/datasets").json()["items"]
    assert (found["state"], found["images"]) == ("ready", PICTURES), found
    return str(found["id"])


def train(service: Home, dataset: str, name: str, **fields: Any) -> dict[str, Any]:
    answer = service.http.post("/v1/trainings", json={"name": name, "task": "denoise", "dataset": dataset, **SHORT, **fields})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def weights_of(service: Home, name: str) -> str:
    (model,) = service.http.get(f"/v1/models/{name}").json()["items"]
    assert model["state"] == "ready", model
    return str(model["weights_sha256"])


@pytest.fixture(scope="module")
def undisturbed(service: Home, dataset: str) -> dict[str, Any]:
    job = service.final(train(service, dataset, "undisturbed")["id"])
    assert job["state"] == "succeeded", job["error"]
    return job


def test_what_it_learnt_is_seen_epoch_by_epoch_and_beside_others(service: Home, undisturbed: dict[str, Any]) -> None:
    rows = service.http.get(undisturbed["links"]["metrics"]).json()["items"]
    epochs = [(row["epoch"], row["split"]) for row in rows if row["split"]]
    assert epochs == [(epoch, split) for epoch in range(1, EPOCHS + 1) for split in ("train", "validation")]
    held_out = [row for row in rows if row["split"] == "validation"]
    assert all(row["psnr"] > 0 and 0 <= row["ssim"] <= 1 and row["mse"] > 0 and row["rmse"] > 0 and row["mae"] > 0 for row in held_out)
    names = [one["name"] for one in service.http.get(undisturbed["links"]["artifacts"]).json()["items"]]
    assert "checkpoint.safetensors" in names
    assert any(name.endswith(".png") for name in names)
    measured = service.http.get("/v1/models/undisturbed/metrics").json()["items"]
    assert measured, "its evaluation is in its manifest"


def test_the_model_restores_pictures(service: Home, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "noisy.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    answer = service.http.post("/v1/restorations", data={"model": "undisturbed"}, files={"image": ("noisy.png", path.read_bytes())})
    job = service.final(answer.json()["id"])
    assert (job["state"], job["model"]) == ("succeeded", "undisturbed@1"), job["error"]


def test_it_is_measured_beside_others(service: Home, dataset: str, undisturbed: dict[str, Any]) -> None:
    order = {"models": ["undisturbed", "denoise@1"], "dataset": dataset, "sigmas": [25]}
    job = service.final(service.http.post("/v1/evaluations", json=order).json()["id"])
    assert (job["state"], job["result"]["models"]) == ("succeeded", ["undisturbed@1", "denoise@1"]), job["error"]
    assert job["result"]["pictures"] == PICTURES
    rows = service.http.get(job["links"]["metrics"]).json()["items"]
    means = {row["of"]: row["psnr"] for row in rows if row["picture"] is None}
    assert set(means) == {"undisturbed@1", "denoise@1", "opencv-nlm", "input"}
    assert means["denoise@1"] > means["input"] + 5
    assert len([row for row in rows if row["of"] == "denoise@1" and row["picture"]]) == PICTURES


def test_disturbed_at_any_moment_it_ends_with_the_same_weights_bit_for_bit(
    service: Home, dataset: str, undisturbed: dict[str, Any]
) -> None:
    job = train(service, dataset, "disturbed")
    generator = random.Random(KILLS)  # noqa: S311
    left: str | None = ""
    for number in range(KILLS):
        step = number * STEPS + generator.randrange(1, STEPS)
        eventually(f"it comes to step {step}", lambda step=step, left=left: came_to(service, job["id"], step, left))  # type: ignore[misc]
        DISTURBANCES[number % len(DISTURBANCES)](service)
        left = checkpoint(service, job["id"])  # an attempt that is asked to stop leaves one too
    ended = service.final(job["id"])
    assert ended["state"] == "succeeded", ended["error"]
    assert weights_of(service, "disturbed") == weights_of(service, "undisturbed")
    rows = service.http.get(ended["links"]["metrics"]).json()["items"]
    assert len([row for row in rows if row["split"]]) == 2 * EPOCHS


def came_to(service: Home, job_id: str, step: int, left: str | None) -> bool:
    """Whether a child learns, left another checkpoint than what was `left`, and came so far; or it is all over."""
    job = service.job(job_id)
    learns = service.processes(CHILD) and job["progress"]["done"] >= step and checkpoint(service, job_id) != left
    return job["state"] not in ("queued", "running") or bool(learns)


def checkpoint(service: Home, job_id: str) -> str | None:
    """The hash of what it would go on from."""
    found = service.http.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
    return next((one["sha256"] for one in found if one["name"] == "checkpoint.safetensors"), None)


def restart(service: Home) -> None:
    """As a machine that is switched off, and on again."""
    up = service.started[-1]
    up.terminate()
    assert up.wait(60) == 0
    assert not service.processes(CHILD)
    service.up()


def kill(service: Home, what: str) -> None:
    for process in service.processes(what):
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


DISTURBANCES: list[Callable[[Home], None]] = [
    lambda service: kill(service, CHILD),
    restart,
    lambda service: kill(service, "worker.app trainer"),
]


def test_a_canceled_training_stops_at_once_and_keeps_its_checkpoint(service: Home, dataset: str) -> None:
    job = train(service, dataset, "canceled", epochs=10_000)
    eventually("an epoch is over", lambda: service.http.get(job["links"]["metrics"]).json()["items"])
    assert service.http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    eventually("no child learns any more", lambda: not service.processes(CHILD))
    assert service.job(job["id"])["state"] == "canceled"
    kept = service.http.get(f"/v1/jobs/{job['id']}/artifacts/checkpoint.safetensors")
    assert kept.status_code == 200
    (model,) = service.http.get("/v1/models/canceled").json()["items"]
    assert model["state"] == "failed"
