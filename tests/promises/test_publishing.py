"""An added model, from its row to a network that runs: exported once, compared, kept, fetched again when damaged."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy.exc import OperationalError
from uuid_utils import uuid7

from shared.blobs.local import LocalBlobs
from shared.errors import Fault, Refused
from shared.jobs.job import Job, Kind, Lane, NewJob, State, blob_key
from shared.models import manifest
from shared.models.manifest import Manifest
from shared.models.store import Model, Models
from tests.promises import wiring
from trainer import artifact, networks
from trainer.execution import export
from trainer.execution.openvino import OpenVinoExecutor
from worker import artifacts, patience
from worker.upkeep.sweeper import sweep
from worker.wiring import Ports

CONFIG = {"widths": [4, 8], "blocks": 1}


def trained(folder: Path, scale: float = 0.05, **cares: Any) -> Path:
    """What a training leaves: a small network."""
    config = cares.get("config", CONFIG)
    model = networks.build("unet", config if max(config["widths"]) < 100 else CONFIG)
    generator = np.random.default_rng(0)
    weights = {variable.path: generator.normal(0, 1, tuple(variable.shape)).astype(np.float32) * scale for variable in model.variables}
    values = {
        "schema": 1, "name": "mine", "version": 1, "task": "denoise", "architecture": "unet", "config": CONFIG, "weights_sha256": "0" * 64,
        "parameters": model.count_params(), "created_at": "2026-01-01T00:00:00Z", "base": None, "recipe": {}, "data": [], "metrics": {},
        "licence": "",
    }  # fmt: skip
    artifact.publish(folder, weights, Manifest.model_validate({**values, **cares}))
    return folder


def add(ports: Ports, folder: Path) -> Job:
    """What the API leaves behind: the weights published, then the rows of the model and its job."""
    described = manifest.read(folder)
    model_id, job_id = str(uuid7()), str(uuid7())
    draft = ports.blobs.draft()
    draft.write((folder / artifact.WEIGHTS).read_bytes())
    size, sha256, key = draft.size, draft.sha256(), blob_key(model_id, "weights")
    draft.place(key)
    new = NewJob(
        id=job_id, owner_id="local", kind=Kind.PUBLISH, lane=Lane.TRAIN, task=described.task, model_name=described.name,
        model_version=described.version, params={}, pixels=1, max_attempts=3, request_id="request",
        input={"name": described.reference, "bytes": size, "sha256": sha256, "format": "SAFETENSORS", "key": key},
    )  # fmt: skip
    return ports.jobs.accept(new, alongside=[ports.artifacts.models.preparing(described, model_id, job_id, "local")])


def ended(ports: Ports, job: Job) -> Job:
    wiring.work(ports, lanes=[Lane.TRAIN])
    found = ports.jobs.get(job.id)
    assert found is not None
    return found


def stored(ports: Ports) -> set[str]:
    return {blob.key for blob in ports.blobs.stored()}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Ports:
    """A home where `mine@1` was published by a real export."""
    folder = tmp_path_factory.mktemp("published")
    ports = wiring.ports(folder / "home")
    job = ended(ports, add(ports, trained(folder / "mine")))
    assert job.state is State.SUCCEEDED, job.error
    return ports


def test_it_is_ready_and_its_exported_network_does_what_keras_does(house: Ports, tmp_path: Path) -> None:
    (job,) = house.jobs.page("local", {"kind": "publish"}, 10, None)
    assert job.result is not None
    assert job.result["difference"] <= export.TOLERANCE
    assert job.result["tiled_psnr"] >= 60
    folder = house.artifacts.folder("mine", 1)
    network = OpenVinoExecutor(tmp_path / "unused", "float32").load(folder)
    assert not (tmp_path / "unused").exists(), "it was exported again, and not taken from the blob"
    _, keras_network = artifact.load_network(folder)
    (picture,) = export.sample([3], 64, 48)
    assert np.abs(network.run(picture) - np.asarray(keras_network(picture))).max() <= export.TOLERANCE


def test_only_what_its_rows_name_is_kept(house: Ports) -> None:
    model = house.artifacts.models.get("mine", 1)
    assert model is not None
    assert model.id is not None
    stray = house.blobs.draft()
    stray.write(b"of an attempt that lost its lease")
    stray.place(blob_key(model.id, "exported.0"))
    assert sweep(house.jobs, house.artifacts.models, house.datasets, house.blobs, grace_seconds=-1) == 1
    assert stored(house) == {model.weights_key, model.exported_key}
    assert not list(house.settings.models.glob(".*")), "a folder to make things in was left behind"


@pytest.mark.parametrize("name", [artifact.WEIGHTS, "manifest.json", "openvino/network.bin", "openvino/export.json"])
def test_a_damaged_copy_is_fetched_again(house: Ports, name: str) -> None:
    damaged = house.artifacts.folder("mine", 1) / name
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert (house.artifacts.folder("mine", 1) / name).read_bytes() == whole


def test_damaged_blobs_are_said_to_be_damaged(house: Ports, tmp_path: Path) -> None:
    other = artifacts.Artifacts(house.artifacts.models, _Damaged(house.settings.blobs), tmp_path / "models")
    with pytest.raises(Fault, match="damaged: add it under another version"):
        other.folder("mine", 1)


class _Damaged(LocalBlobs):
    def open(self, key: str) -> Any:
        with super().open(key) as file:
            data = bytearray(file.read())
        data[len(data) // 2] ^= 1
        return io.BytesIO(bytes(data))


def test_a_blob_that_is_gone_is_said_too(house: Ports, tmp_path: Path) -> None:
    other = artifacts.Artifacts(house.artifacts.models, LocalBlobs(tmp_path / "empty"), tmp_path / "models")
    with pytest.raises(Fault, match="damaged"):
        other.folder("mine", 1)


def test_while_the_database_is_away_the_files_of_a_model_are_waited_for(
    house: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "AGAIN_SECONDS", 0.001)

    class Away(Models):
        times = 2

        def get(self, name: str, version: int) -> Model | None:
            if self.times:
                self.times -= 1
                raise OperationalError("SELECT", {}, Exception("away"))
            return house.artifacts.models.get(name, version)

    other = artifacts.Artifacts(Away(house.jobs._engine), house.blobs, tmp_path / "models")
    assert (other.folder("mine", 1) / artifact.WEIGHTS).exists()


def test_what_another_program_is_making_is_left_alone_and_what_a_dead_one_left_is_not(tmp_path: Path) -> None:
    with artifacts.making(tmp_path) as one:
        (tmp_path / f"{artifacts.MAKING}dead" / "files").mkdir(parents=True)
        with artifacts.making(tmp_path) as other:
            assert {path.name for path in tmp_path.glob(".*")} == {one.name, other.name}
    assert not list(tmp_path.glob(".*"))


def test_a_model_that_is_not_ready_has_no_files(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path / "home")
    add(ports, trained(tmp_path / "mine"))
    with pytest.raises(Refused, match="not there any more"):
        ports.artifacts.folder("mine", 1)


def misfit(folder: Path) -> Path:
    """Weights of another network, with a manifest that names their hash."""
    trained(folder)
    (folder / artifact.WEIGHTS).write_bytes(save({"a": np.ones(7, np.float32)}))
    described = manifest.read(folder)
    named = described.model_copy(update={"weights_sha256": artifact.sha256_of(folder / artifact.WEIGHTS)})
    (folder / "manifest.json").write_text(manifest.dump(named))
    return folder


@pytest.mark.parametrize(
    "wrong", ["another network's weights", "an unknown architecture", "an absurd config", "grey only", "no numbers", "another task's"]
)
def test_what_is_no_network_of_ours_fails_with_a_reason_and_leaves_no_blob(tmp_path: Path, wrong: str) -> None:
    ports = wiring.ports(tmp_path / "home")
    if wrong == "another network's weights":
        folder = misfit(tmp_path / "mine")
    elif wrong == "an unknown architecture":
        folder = trained(tmp_path / "mine", architecture="transformer")
    elif wrong == "grey only":
        folder = trained(tmp_path / "mine", config={**CONFIG, "channels": 1})
    elif wrong == "no numbers":
        folder = trained(tmp_path / "mine", scale=float("nan"))
    elif wrong == "another task's":
        folder = trained(tmp_path / "mine", task="inpaint")
    else:
        folder = trained(tmp_path / "mine", config={"widths": [10**9]})
    job = ended(ports, add(ports, folder))
    assert job.state is State.FAILED
    assert job.error is not None
    assert job.error["code"] == "artifact_invalid"
    assert len(job.error["detail"]) > 40, "it does not say what does not fit"
    assert [model.state for model in ports.artifacts.models.list() if model.id] == ["failed"]
    sweep(ports.jobs, ports.artifacts.models, ports.datasets, ports.blobs, grace_seconds=-1)
    assert stored(ports) == set()


def test_a_canceled_one_stops_exporting_and_never_gets_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = wiring.ports(tmp_path / "home")
    job = add(ports, trained(tmp_path / "mine"))
    really = export.make

    def cancel_then(model: Path, folder: Path, look: Any) -> None:
        ports.jobs.cancel("local", job.id)

        def look_patiently() -> None:
            """Until the keeper has heard of it."""
            assert look.__self__.lost.wait(60)
            look()

        really(model, folder, look_patiently)
        raise AssertionError("it was exported to the end")

    monkeypatch.setattr(export, "make", cancel_then)
    assert ended(ports, job).state is State.CANCELED
    assert [model.state for model in ports.artifacts.models.list() if model.id] == ["failed"]
    assert not list(ports.settings.models.glob(".*"))


def test_what_openvino_cannot_express_is_ready_all_the_same_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = wiring.ports(tmp_path / "home")
    job = add(ports, trained(tmp_path / "mine"))

    def refuse(model: Path, folder: Path, look: Any) -> None:
        described = manifest.read(model)
        record = export.Record(
            described.reference, described.hash_of_weights, export.exporter(), {}, 2, 8, 24, 0.0, 0.0, "no such operation"
        )
        folder.mkdir()
        (folder / export.RECORD).write_text(json.dumps(dataclasses.asdict(record)))

    monkeypatch.setattr(export, "make", refuse)
    found = ended(ports, job)
    assert found.state is State.SUCCEEDED
    assert found.result is not None
    assert found.result["inexpressible"] == "no such operation"
    network = OpenVinoExecutor(tmp_path / "networks").load(ports.artifacts.folder("mine", 1))
    assert network.described.executor == "tensorflow"
    assert not (tmp_path / "networks").exists(), "it was tried again"
