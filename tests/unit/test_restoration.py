"""However an attempt ends, its row says so: also when the database was away, and never with the text of our own mistakes."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.errors import Transient, outcome_of
from shared.jobs.job import Job, Lane, State, blob_key, preview_part
from shared.models.store import Models
from tests.promises import wiring
from worker import patience
from worker.committer import Committer
from worker.keeper import Held
from worker.restoration import restore
from worker.upkeep.sweeper import sweep
from worker.wiring import Ports


class Raising(wiring.Identity):
    """A network that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        raise self.error


def ended(ports: Ports) -> Job:
    """How one picture ended."""
    job = wiring.submit(ports, np.full((20, 30, 3), 90, np.uint8))
    wiring.work(ports)
    found = ports.jobs.get(job.id)
    assert found is not None
    return found


def test_a_mistake_of_ours_fails_the_job_and_never_shows_its_text(tmp_path: Path) -> None:
    job = ended(wiring.ports(tmp_path, Raising(RuntimeError("a secret of the implementation"))))
    assert job.state is State.FAILED
    assert job.error is not None
    assert job.error["code"] == "internal"
    assert "secret" not in str(job.error)


def test_too_little_memory_is_said_as_such(tmp_path: Path) -> None:
    job = ended(wiring.ports(tmp_path, Raising(MemoryError())))
    assert (job.state, (job.error or {})["code"]) == (State.FAILED, "out_of_memory")


@pytest.mark.parametrize("error", [Transient("internal"), OSError(errno.EIO, "the disk is away")])
def test_what_passes_is_tried_again_later_with_its_attempt_counted(tmp_path: Path, error: Exception) -> None:
    job = ended(wiring.ports(tmp_path, Raising(error)))
    assert (job.state, job.attempts, job.alone, job.error) == (State.QUEUED, 1, False, None)
    assert job.due_at - job.changed_at >= 1000, "it is tried again at once, against what has just failed"


class Canceled(wiring.Identity):
    """A network that runs for a picture which is canceled meanwhile."""

    held: Held
    runs = 0

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        self.runs += 1
        self.held.lost.set()  # as the keeper would
        return inputs[0]


def test_after_a_cancel_no_tile_begins_and_nothing_is_stored(tmp_path: Path) -> None:
    network = Canceled()
    ports = wiring.ports(tmp_path, network)
    wiring.submit(ports, np.full((2300, 1900, 3), 90, np.uint8))  # more than 4 Mpx: tiles
    (job,) = ports.jobs.claim("tests:1", [Lane.INTERACTIVE], 10**9, idle=True)
    network.held = Held(job)
    committer = Committer(ports.jobs, ports.blobs, ports.outputs)
    committer.start()
    restore(network.held, ports, committer)
    committer.stop()
    assert (network.runs, network.held.done, network.held.total) == (1, 1, 6)
    assert [blob.key for blob in ports.blobs.stored()] == [job.input["key"]]


def test_small_pictures_of_both_are_stored_with_the_result_and_kept_as_long(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path)
    submitted = wiring.submit(ports, np.full((3300, 40, 3), 90, np.uint8))
    wiring.work(ports)
    job = ports.jobs.get(submitted.id)
    assert job is not None
    for of in ("input", "result"):
        with ports.blobs.open(blob_key(job.id, preview_part(of, job.token))) as file, Image.open(file, formats=["WEBP"]) as image:
            assert image.size == (19, 1600)
            assert np.abs(np.asarray(image, dtype=int) - 90).max() <= 2
    kept = sorted(blob.key for blob in ports.blobs.stored())
    assert len(kept) == 4
    sweep(ports.jobs, Models(ports.jobs._engine), ports.datasets, ports.blobs, grace_seconds=-1)
    assert sorted(blob.key for blob in ports.blobs.stored()) == kept


def test_the_best_speed_sees_a_picture_eight_times_costs_as_much_and_stops_between_two(tmp_path: Path) -> None:
    network = Canceled()
    ports = wiring.ports(tmp_path, network)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    best, normal = wiring.submit(ports, pixels, speed="best"), wiring.submit(ports, pixels)
    assert best.seen_pixels == 8 * normal.seen_pixels
    assert normal.turn - best.turn == pytest.approx(normal.pixels / 1e6 + 0.01), "the turn of the next does not follow its cost"
    assert best.turn == pytest.approx(8 * best.pixels / 1e6 + 0.01)
    committer = Committer(ports.jobs, ports.blobs, ports.outputs)
    committer.start()
    for job in ports.jobs.claim("tests:1", [Lane.INTERACTIVE], 10**9, idle=True)[:1]:
        network.held = Held(job)
        restore(network.held, ports, committer)
        assert (network.runs, network.held.done) == (1, 0)
        restore(Held(job), wiring.ports(tmp_path), committer)  # in a worker whose keeper saw no cancel
    committer.stop()
    found = ports.jobs.get(best.id)
    assert found is not None
    assert found.state is State.SUCCEEDED


@pytest.mark.parametrize(("error", "state"), [(RuntimeError(), State.FAILED), (OSError(errno.EIO, "the disk is away"), State.QUEUED)])
def test_an_end_that_could_not_be_written_is_written_when_the_database_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, state: State
) -> None:
    monkeypatch.setattr(patience, "AGAIN_SECONDS", 0.001)
    ports = wiring.ports(tmp_path, Raising(error))
    jobs = wiring.Forgetful(ports.jobs._engine, 30)
    assert ended(replace(ports, jobs=jobs)).state is state
    assert jobs.times == 0


def test_an_error_of_a_library_is_not_taken_for_the_storage_s() -> None:
    assert not outcome_of(OSError("broken data stream when writing image file")).retryable
    assert outcome_of(OSError(errno.EIO, "input/output error")).retryable
