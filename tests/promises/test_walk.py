"""The walk of docs/architecture.md: whoever dies wherever, the job ends once, with its bytes, and nothing is left behind."""

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import update

from shared import children
from shared.blobs.local import LocalBlobs
from shared.database.engine import now_ms
from shared.database.tables import jobs as jobs_table
from shared.jobs.job import State, blob_key, preview_part
from tests.promises import dying, wiring
from worker.upkeep.reaper import Reaper
from worker.upkeep.sweeper import sweep
from worker.wiring import Ports


def picture(seed: int = 0, height: int = 120, width: int = 90) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def lapse_leases(ports: Ports) -> None:
    """A lease later."""
    with ports.jobs._engine.begin() as connection:
        connection.execute(update(jobs_table).where(jobs_table.c.state == "running").values(lease_until=now_ms() - 1))


def make_due(ports: Ports) -> None:
    """The back-off is over; and the test does without a process for each suspect."""
    with ports.jobs._engine.begin() as connection:
        connection.execute(update(jobs_table).where(jobs_table.c.state == "queued").values(due_at=now_ms(), alone=False))


def stored_keys(ports: Ports) -> set[str]:
    return {blob.key for blob in ports.blobs.stored()}


@pytest.mark.parametrize("point", dying.POINTS)
def test_a_worker_that_dies_anywhere_costs_an_attempt_and_never_the_job(tmp_path: Path, point: str) -> None:
    ports = wiring.ports(tmp_path)
    job = wiring.submit(ports, picture())

    died = subprocess.run(children.python("tests.promises.dying", str(tmp_path), point), check=False)
    assert died.returncode == -9, "the point was never reached: the test no longer tests it"

    lapse_leases(ports)
    reaped = Reaper(ports.jobs, lease_seconds=30, tick_seconds=5).reap()
    assert [found.id for found in reaped] == ([] if point == "committed" else [job.id])
    make_due(ports)
    wiring.work(ports)

    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert ended.state is State.SUCCEEDED
    assert ended.attempts == (1 if point == "committed" else 2)
    assert ended.result is not None
    assert ended.result_key is not None
    with ports.blobs.open(ended.result_key) as file:
        assert hashlib.sha256(file.read()).hexdigest() == ended.result["sha256"]

    sweep(ports.jobs, ports.artifacts.models, ports.datasets, ports.blobs, grace_seconds=-1)
    previews = {blob_key(job.id, preview_part(of, ended.token)) for of in ("input", "result")}
    assert stored_keys(ports) == {job.input["key"], ended.result_key, *previews}
    assert not list((ports.settings.blobs / ".drafts").iterdir())


def test_a_blob_whose_row_was_never_inserted_is_swept_after_its_grace_and_not_before(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path)
    draft = ports.blobs.draft()
    draft.write(b"the API died between the blob and the row")
    draft.place("ab/01900000-0000-7000-8000-0000000000ab/upload")
    assert sweep(ports.jobs, ports.artifacts.models, ports.datasets, ports.blobs, grace_seconds=3600) == 0
    assert sweep(ports.jobs, ports.artifacts.models, ports.datasets, ports.blobs, grace_seconds=-1) == 1
    assert stored_keys(ports) == set()


def test_the_sweeper_leaves_a_running_job_alone(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path)
    wiring.submit(ports, picture())
    (running,) = ports.jobs.claim("tests:1", ["interactive"], 10**9, idle=True)  # type: ignore[list-item]
    draft = ports.blobs.draft()
    draft.write(b"a result on its way")
    draft.place(running.input["key"].replace("upload", f"result.{running.token}"))
    before = stored_keys(ports)
    sweep(ports.jobs, ports.artifacts.models, ports.datasets, ports.blobs, grace_seconds=-1)
    assert stored_keys(ports) == before


def test_a_job_that_keeps_killing_its_worker_fails_as_worker_lost(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path)
    job = wiring.submit(ports, picture())
    for _ in range(3):
        make_due(ports)
        subprocess.run(children.python("tests.promises.dying", str(tmp_path), "in the network"), check=False)
        lapse_leases(ports)
        Reaper(ports.jobs, lease_seconds=30, tick_seconds=5).reap()
    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "worker_lost"


class CancelingNetwork(wiring.Identity):
    """The owner cancels while the network runs."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.job_id = ""

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self.ports.jobs.cancel("local", self.job_id) is not None
        return inputs[0]


def test_a_job_canceled_in_the_middle_never_gets_a_result(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path)
    network = CancelingNetwork(ports)
    job = wiring.submit(ports, picture())
    network.job_id = job.id
    wiring.work(wiring.with_network(ports, network))
    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert ended.state is State.CANCELED
    assert ended.result is None
    sweep(ports.jobs, ports.artifacts.models, ports.datasets, ports.blobs, grace_seconds=-1)
    assert stored_keys(ports) <= {job.input["key"]}


def test_a_damaged_picture_among_good_ones_fails_alone_and_says_why(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path)
    good = [wiring.submit(ports, picture(seed)) for seed in range(3)]
    draft = LocalBlobs(ports.settings.blobs).draft()
    draft.write(b"\x89PNG\r\n\x1a\n and then nothing that is a picture")
    bad = wiring.submit_bytes(ports, draft, 90, 120)
    good += [wiring.submit(ports, picture(seed)) for seed in range(3, 6)]
    wiring.work(ports)
    assert {found.state for job in good if (found := ports.jobs.get(job.id))} == {State.SUCCEEDED}
    failed = ports.jobs.get(bad.id)
    assert failed is not None
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error["code"] in {"image_corrupt", "image_truncated"}


def test_an_identity_network_gives_back_every_pixel_also_through_tiles(tmp_path: Path) -> None:
    from PIL import Image

    ports = wiring.ports(tmp_path)
    pixels = picture(7, 2300, 1900)  # more than 4 Mpx: tiles
    job = wiring.submit(ports, pixels)
    wiring.work(ports)
    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert ended.result_key is not None
    assert ended.progress_total == 6
    with ports.blobs.open(ended.result_key) as file, Image.open(file) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_a_reaper_that_was_late_itself_reaps_nothing_for_one_lease(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path)
    wiring.submit(ports, picture())
    ports.jobs.claim("tests:1", ["interactive"], 10**9, idle=True)  # type: ignore[list-item]
    lapse_leases(ports)
    time = [1000.0]
    reaper = Reaper(ports.jobs, lease_seconds=30, tick_seconds=5, steady=lambda: time[0])
    time[0] += 600  # the laptop slept
    assert reaper.reap() == []
    for _ in range(5):
        time[0] += 5
        assert reaper.reap() == []
    time[0] += 6
    assert len(reaper.reap()) == 1
