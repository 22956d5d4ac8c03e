"""The loop takes what fits, gives back what it will not do, and holds nothing that nobody works on."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shared import children
from shared.jobs.job import Job, Lane, State
from tests.promises import wiring
from tests.promises.programs import eventually
from worker import alone, keeper
from worker.committer import Committer
from worker.keeper import Held, Keeper
from worker.loop import Loop
from worker.wiring import Ports


def picture(side: int = 40) -> NDArray[np.uint8]:
    return np.full((side, side, 3), 90, np.uint8)


class Gate(wiring.Identity):
    """A network that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.entered.set()
        assert self.let_go.wait(60)
        return batch


def loop_of(ports: Ports, budget_pixels: int = 10_000_000) -> tuple[Loop, Keeper, Callable[[], None]]:
    kept = Keeper(ports.jobs, 10)
    committer = Committer(ports.jobs, ports.blobs)
    committer.start()
    return Loop(ports, kept, committer, "tests:1", (Lane.INTERACTIVE, Lane.BULK), budget_pixels), kept, committer.stop


def states(ports: Ports, submitted: list[Job]) -> list[State]:
    return [found.state for job in submitted if (found := ports.jobs.get(job.id))]


def test_it_works_until_nothing_is_due_and_holds_nothing_then(tmp_path: Path) -> None:
    ports = wiring.ports(tmp_path)
    submitted = [wiring.submit(ports, picture()) for _ in range(20)]
    loop, kept, stop = loop_of(ports)
    loop.run()
    stop()
    assert states(ports, submitted) == [State.SUCCEEDED] * 20
    assert kept.all() == []
    assert loop._in_work == 0


def test_a_stopping_worker_finishes_its_picture_and_gives_the_rest_back_unharmed(tmp_path: Path) -> None:
    gate = Gate()
    ports = wiring.ports(tmp_path, gate)
    submitted = [wiring.submit(ports, picture()) for _ in range(4)]  # small: one group
    loop, _, stop = loop_of(ports)
    working = threading.Thread(target=loop.run)
    working.start()
    assert gate.entered.wait(60)
    loop.stop()
    gate.let_go.set()
    working.join(60)
    stop()
    assert states(ports, submitted) == [State.SUCCEEDED] + [State.QUEUED] * 3
    assert [(ports.jobs.get(job.id) or job).attempts for job in submitted] == [1, 0, 0, 0]


def test_when_the_grace_is_over_also_the_picture_in_work_is_given_back_and_its_result_never_counts(tmp_path: Path) -> None:
    gate = Gate()
    ports = wiring.ports(tmp_path, gate)
    job = wiring.submit(ports, picture())
    loop, _, stop = loop_of(ports)
    working = threading.Thread(target=loop.run)
    working.start()
    assert gate.entered.wait(60)
    loop.release()
    gate.let_go.set()
    working.join(60)
    stop()
    assert states(ports, [job]) == [State.QUEUED]
    assert (ports.jobs.get(job.id) or job).attempts == 0


def test_pictures_in_work_stay_within_the_budget_of_pixels(tmp_path: Path) -> None:
    gate = Gate()
    ports = wiring.ports(tmp_path, gate)
    first, second = wiring.submit(ports, picture(1100)), wiring.submit(ports, picture(1100))
    loop, _, stop = loop_of(ports, budget_pixels=2_000_000)
    working = threading.Thread(target=loop.run)
    working.start()
    assert gate.entered.wait(60)
    loop.run()  # another bell: returns at once, the second picture does not fit beside the first
    assert states(ports, [first, second]) == [State.RUNNING, State.QUEUED]
    gate.let_go.set()
    working.join(60)
    stop()
    assert states(ports, [first, second]) == [State.SUCCEEDED] * 2


@pytest.fixture
def suspect(tmp_path: Path) -> tuple[Ports, Job]:
    """A job whose last attempt lost its worker, claimed again."""
    ports = wiring.ports(tmp_path)
    job = wiring.submit(ports, picture())
    (claimed,) = ports.jobs.claim("tests:1", [Lane.INTERACTIVE], 1_000_000, idle=True)
    return ports, claimed if claimed.id == job.id else job


def alone_with(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(children, "python", lambda *_: [sys.executable, "-c", program])


def test_a_suspect_whose_own_process_dies_is_tried_again_alone(suspect: tuple[Ports, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    ports, job = suspect
    alone_with(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    alone.run(Held(job), ports)
    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert (ended.state, ended.attempts, ended.alone) == (State.QUEUED, 1, True)


def test_a_suspect_that_overruns_its_deadline_again_is_timed_out(suspect: tuple[Ports, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    ports, job = suspect
    alone_with(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(keeper, "BASE_DEADLINE_SECONDS", 0.1)
    monkeypatch.setattr(keeper, "DEADLINE_SECONDS_PER_MPX", 0.0)
    alone.run(Held(job), ports)
    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "timed_out"


def test_a_suspect_that_is_canceled_is_killed_and_stays_canceled(suspect: tuple[Ports, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    ports, job = suspect
    alone_with(monkeypatch, "import time; time.sleep(600)")
    held = Held(job)
    working = threading.Thread(target=alone.run, args=[held, ports])
    working.start()
    ports.jobs.cancel("local", job.id)
    held.lost.set()  # as the keeper would
    working.join(60)
    assert not working.is_alive()
    assert states(ports, [job]) == [State.CANCELED]


def test_what_a_loop_holds_is_dropped_even_if_an_attempt_could_not_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = wiring.ports(tmp_path)
    wiring.submit(ports, picture())
    loop, kept, stop = loop_of(ports)

    def broken(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("worker.loop.restore", broken)
    with pytest.raises(RuntimeError):
        loop.run()
    stop()
    assert kept.all() == []
    assert loop._in_work == 0
    eventually("another bell finds a seat", lambda: loop._seats.acquire(blocking=False))
