"""A data set whose worker dies anywhere is made anew, is ready once and whole, and nothing of the dead attempt is left."""

import io
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from uuid_utils import uuid7

from shared import children
from shared.datasets import packed
from shared.datasets.packed import Index
from shared.jobs.job import DATASET, Job, Kind, Lane, NewJob, State, blob_key
from tests.contracts.photos import packed as filed
from tests.contracts.photos import photo
from tests.promises import dying, wiring
from tests.promises.test_walk import lapse_leases, make_due, stored_keys
from worker.upkeep.reaper import Reaper
from worker.upkeep.sweeper import sweep
from worker.wiring import Ports

PICTURES = 5


def sent(ports: Ports) -> Job:
    """What the API leaves behind: the archive published, then the rows of the set and its job."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        for number in range(PICTURES):
            zipped.writestr(f"{number}.png", filed(photo(number)))
    dataset_id, job_id = str(uuid7()), str(uuid7())
    draft, key = ports.blobs.draft(), blob_key(job_id, "archive")
    draft.write(made.getvalue())
    draft.place(key)
    given = {"name": "a.zip", "bytes": draft.size, "sha256": draft.sha256(), "format": "archive", "key": key}
    new = NewJob(
        id=job_id, owner_id="local", kind=Kind.INGEST, lane=Lane.BULK, task="", model_name="", model_version=0,
        input=given | {DATASET: dataset_id, "kind": "clean"}, params={}, pixels=0, max_attempts=3, request_id="request",
    )  # fmt: skip
    return ports.jobs.accept(new, alongside=[ports.datasets.ingesting(dataset_id, job_id, "local", "clean", None)])


@pytest.mark.parametrize("point", [point for point in dying.POINTS if point != "in the network"])
def test_a_worker_that_dies_anywhere_costs_an_attempt_and_never_the_set(tmp_path: Path, point: str) -> None:
    ports = wiring.ports(tmp_path)
    job = sent(ports)
    died = subprocess.run(children.python("tests.promises.dying", str(tmp_path), point), check=False)
    assert died.returncode == -9, "the point was never reached: the test no longer tests it"
    lapse_leases(ports)
    Reaper(ports.jobs, lease_seconds=30, tick_seconds=5).reap()
    make_due(ports)
    wiring.work(ports)

    ended, dataset = ports.jobs.get(job.id), ports.datasets.usable(job.input[DATASET], "local")
    assert ended is not None
    assert (ended.state, ended.attempts) == (State.SUCCEEDED, 1 if point == "committed" else 2)
    assert dataset.index_key is not None and dataset.pixels_key is not None
    with ports.blobs.open(dataset.index_key) as index, ports.blobs.open(dataset.pixels_key) as pixels:
        listed, raw = Index.parse(json.load(index)), np.frombuffer(pixels.read(), np.uint8)
    assert listed.sha256 == dataset.sha256 == packed.of_set(image.sha256 for image in listed.images)
    for number, image in enumerate(listed.images):
        assert (raw[image.offset : image.offset + image.size].reshape(image.shape) == photo(number)).all()
    sweep(ports.jobs, ports.artifacts.models, ports.datasets, ports.blobs, grace_seconds=-1)
    assert stored_keys(ports) == {dataset.index_key, dataset.pixels_key}
    assert not list((ports.settings.blobs / ".drafts").iterdir())
