"""The loop takes what fits, gives back what it will not do, and holds nothing that nobody works on."""

import logging
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from shared import children
from shared.children import Child
from shared.database.tables import jobs as jobs_table
from shared.database.tables import jobs as rows
from shared.jobs.job import Job, Lane, State
from tests.promises import wiring
from tests.promises.programs import eventually
from worker import alone, app, keeper, patience
from worker import loop as loop_module
from worker.attempts import ATTEMPTS
from worker.committer import Committer
from worker.keeper import Held, Keeper
from worker.loop import Loop
from worker.restoration import restore
from worker.wiring import Ports


def picture(side: int = 40) -> NDArray[np.uint8]:
    return np.full((side, side, 3), 90, np.uint8)


class Gate(wiring.Identity):
    """A network that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        self.entered.set()
        assert self.let_go.wait(60)
        return inputs[0]


def loop_of(ports: Ports, budget_pixels: int = 10_000_000) -> tuple[Loop, Keeper, Callable[[], None]]:
    kept = Keeper(ports.jobs, 10)
    committer = Committer(ports.jobs, ports.blobs, ports.outputs)
    committer.start()
    return (
        Loop(ports, kept, committer, "tests:1", (Lane.INTERACTIVE, Lane.BULK), budget_pixels, ports.settings.workers),
        kept,
        committer.stop,
    )


def started(work: Callable[[], None]) -> threading.Thread:
    """A thread that nobody waits for: work that hangs fails its test, and stops no other."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def finish(working: threading.Thread) -> None:
    working.join(60)
    assert not working.is_alive(), "it works on and on"


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
    assert loop._room.idle


def test_a_stopping_worker_finishes_its_picture_and_gives_the_rest_back_unharmed(tmp_path: Path) -> None:
    gate = Gate()
    ports = wiring.ports(tmp_path, gate)
    submitted = [wiring.submit(ports, picture()) for _ in range(4)]  # small: one group
    loop, _, stop = loop_of(ports)
    working = started(loop.run)
    assert gate.entered.wait(60)
    loop.stop()
    gate.let_go.set()
    finish(working)
    stop()
    assert states(ports, submitted) == [State.SUCCEEDED] + [State.QUEUED] * 3
    assert [(ports.jobs.get(job.id) or job).attempts for job in submitted] == [1, 0, 0, 0]


def test_when_the_grace_is_over_also_the_picture_in_work_is_given_back_and_its_result_never_counts(tmp_path: Path) -> None:
    gate = Gate()
    ports = wiring.ports(tmp_path, gate)
    job = wiring.submit(ports, picture())
    loop, _, stop = loop_of(ports)
    working = started(loop.run)
    assert gate.entered.wait(60)
    loop.release()
    gate.let_go.set()
    finish(working)
    stop()
    assert states(ports, [job]) == [State.QUEUED]
    assert (ports.jobs.get(job.id) or job).attempts == 0


def test_pictures_in_work_stay_within_the_budget_of_pixels(tmp_path: Path) -> None:
    gate = Gate()
    ports = wiring.ports(tmp_path, gate)
    first, second = wiring.submit(ports, picture(1100)), wiring.submit(ports, picture(1100))
    loop, _, stop = loop_of(ports, budget_pixels=2_000_000)
    working = started(loop.run)
    assert gate.entered.wait(60)
    loop.run()  # another bell: returns at once, the second picture does not fit beside the first
    assert states(ports, [first, second]) == [State.RUNNING, State.QUEUED]
    gate.let_go.set()
    finish(working)
    stop()
    assert states(ports, [first, second]) == [State.SUCCEEDED] * 2


def order_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[Lane]:
    """The lanes of the attempts, in order: three small bulk pictures in one group, and an interactive one that comes during the first."""
    monkeypatch.setattr(loop_module, "GLANCE_SECONDS", 0.0)
    ports = wiring.ports(tmp_path)
    bulk = [wiring.submit(ports, picture(), lane=Lane.BULK) for _ in range(3)]
    came: list[Job] = []
    made: list[Lane] = []

    def recorded(held: Held, *others: Any) -> None:
        made.append(Lane(held.job.lane))
        if not came:
            came.append(wiring.submit(ports, picture()))
            monkeypatch.setattr(ports.jobs, "claim", claim(ports.jobs.claim))
        restore(held, *others)

    monkeypatch.setitem(ATTEMPTS, bulk[0].kind, recorded)
    loop, kept, stop = loop_of(ports)
    loop.run()
    stop()
    assert states(ports, [*bulk, *came]) == [State.SUCCEEDED] * 4
    assert [(ports.jobs.get(job.id) or job).attempts for job in bulk] == [1] * 3
    assert kept.all() == []
    assert loop._room.idle
    return made


def test_an_interactive_picture_comes_before_the_rest_of_a_bulk_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_of(tmp_path, monkeypatch, lambda claim: claim) == [Lane.BULK, Lane.INTERACTIVE, Lane.BULK, Lane.BULK]


def test_a_group_goes_on_while_the_database_cannot_be_asked_for_what_comes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [OperationalError("SELECT", {}, Exception("away"))] * 2

    def first_away(claim: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*given: Any, **named: Any) -> Any:
            if away:
                raise away.pop()
            return claim(*given, **named)

        return asked

    assert order_of(tmp_path, monkeypatch, first_away) == [Lane.BULK, Lane.BULK, Lane.BULK, Lane.INTERACTIVE]


def test_an_attempt_that_was_lost_before_it_began_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    made: list[str] = []

    def recorded(held: Held, *others: Any) -> None:
        made.append(held.job.id)
        restore(held, *others)

    monkeypatch.setitem(ATTEMPTS, "restore", recorded)
    ports = wiring.ports(tmp_path, gate)
    submitted = [wiring.submit(ports, picture()) for _ in range(2)]  # small: one group
    loop, kept, stop = loop_of(ports)
    working = started(loop.run)
    assert gate.entered.wait(60)
    ports.jobs.cancel("local", submitted[1].id)
    kept.all()[1].lost.set()  # as the keeper would
    gate.let_go.set()
    finish(working)
    stop()
    assert states(ports, submitted) == [State.SUCCEEDED, State.CANCELED]
    assert made == [submitted[0].id]


def test_while_the_database_is_away_a_bell_changes_nothing_and_the_next_one_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = wiring.ports(tmp_path)
    job = wiring.submit(ports, picture())
    loop, kept, stop = loop_of(ports)

    def away(*_: object, **__: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("away"))

    with monkeypatch.context() as patched:
        patched.setattr(ports.jobs, "claim", away)
        for _ in range(ports.settings.workers + 1):  # more than there are seats: each is given back
            loop.run()
    assert kept.all() == []
    loop.run()
    stop()
    assert states(ports, [job]) == [State.SUCCEEDED]


def test_no_more_threads_work_than_there_are_seats_and_the_others_return_at_once(tmp_path: Path) -> None:
    gate = Gate()
    ports = wiring.ports(tmp_path, gate)
    ports = replace(ports, settings=ports.settings.model_copy(update={"workers": 1}))
    first, second = wiring.submit(ports, picture(1100)), wiring.submit(ports, picture(1100))
    loop, _, stop = loop_of(ports)
    working = started(loop.run)
    assert gate.entered.wait(60)
    loop.run()
    assert states(ports, [first, second]) == [State.RUNNING, State.QUEUED]
    gate.let_go.set()
    finish(working)
    stop()
    assert states(ports, [first, second]) == [State.SUCCEEDED] * 2, "a bell that came while all seats were taken was lost"


def test_while_the_disk_is_nearly_full_bulk_waits_interactive_goes_on_and_each_change_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ports = wiring.ports(tmp_path)
    enough, scarce = (replace(ports, settings=ports.settings.model_copy(update={"min_free": bytes_})) for bytes_ in (0, 10**18))
    caplog.set_level(logging.INFO, "lacuna")
    first, bulk = wiring.submit(ports, picture(), lane=Lane.BULK), wiring.submit(ports, picture(), lane=Lane.BULK)
    loop, _, stop = loop_of(scarce)
    interactive = wiring.submit(ports, picture())
    for _ in range(3):
        loop.run()
    assert states(ports, [first, bulk, interactive]) == [State.QUEUED, State.QUEUED, State.SUCCEEDED]
    assert [line for line in caplog.messages if line.startswith("lane.")] == ["lane.paused"]
    loop._ports = enough  # there is space again
    for _ in range(3):
        loop.run()
    stop()
    assert states(ports, [first, bulk]) == [State.SUCCEEDED] * 2
    assert [line for line in caplog.messages if line.startswith("lane.")] == ["lane.paused", "lane.resumed"]


def test_only_a_suspect_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = wiring.ports(tmp_path)
    submitted = [wiring.submit(ports, picture()) for _ in range(3)]
    with ports.jobs._engine.begin() as connection:
        connection.execute(update(rows).where(rows.c.id == submitted[1].id).values(alone=True))
    ran: list[str] = []
    monkeypatch.setattr(alone, "run", lambda held, _: ran.append(held.job.id))
    loop, _, stop = loop_of(ports)
    loop.run()
    stop()
    assert ran == [submitted[1].id]
    assert states(ports, submitted) == [State.SUCCEEDED, State.RUNNING, State.SUCCEEDED]


def test_the_beat_names_what_is_held_and_what_has_begun_and_no_suspect_that_a_process_of_its_own_answers_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = wiring.ports(tmp_path)
    jobs = [wiring.submit(ports, picture()) for _ in range(4)]
    waiting, begun, overdue, suspect = jobs[0], jobs[1], jobs[2], replace(jobs[3], alone=True)
    kept = Keeper(ports.jobs, 10)
    held = {job.id: kept.hold(job) for job in (waiting, begun, overdue, suspect)}
    for job in (begun, overdue, suspect):
        held[job.id].begin()
    monkeypatch.setattr(Held, "overdue", lambda self: self.job.id in {overdue.id, suspect.id})
    assert app._beat(kept) == {
        "held": [(job.id, 0) for job in (waiting, begun, overdue, suspect)],
        "begun": [(begun.id, 0), (overdue.id, 0)],
        "overdue": [(overdue.id, 0)],
    }


@pytest.fixture
def suspect(tmp_path: Path) -> tuple[Ports, Job]:
    """A job whose last attempt lost its worker, claimed again."""
    ports = wiring.ports(tmp_path)
    job = wiring.submit(ports, picture())
    (claimed,) = ports.jobs.claim("tests:1", [Lane.INTERACTIVE], 1_000_000, idle=True)
    return ports, claimed if claimed.id == job.id else job


def alone_with(monkeypatch: pytest.MonkeyPatch, program: str) -> list[Child]:
    """Run `program` in place of the real child; the children that were started."""
    own: list[Child] = []

    def child(_argv: list[str], environ: Mapping[str, str]) -> Child:
        own.append(Child([sys.executable, "-c", textwrap.dedent(program)], environ))
        return own[-1]

    monkeypatch.setattr(children, "Child", child)
    return own


def run_alone(ports: Ports, job: Job) -> None:
    finish(started(lambda: alone.run(Held(job), ports)))


ENDLESS = "from shared import children; import time; children.hold_lifeline(); time.sleep(600)"


def test_a_suspect_is_restored_in_a_process_of_its_own(suspect: tuple[Ports, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports, job = suspect
    monkeypatch.setenv("LACUNA_HOME", str(tmp_path))
    own = alone_with(
        monkeypatch,
        """
        from tests.promises import wiring
        from worker import alone
        alone.wiring.make = lambda settings, _: wiring.ports(settings.home)
        alone.main()
        """,
    )
    run_alone(ports, job)
    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert (ended.state, ended.attempts) == (State.SUCCEEDED, 1)
    assert ended.result_key is not None
    with ports.blobs.open(ended.result_key) as file:
        assert file.read(), "the result is empty"
    assert [child.ended() for child in own] == [0]


def test_what_the_own_process_of_a_suspect_wrote_is_left_as_it_is(suspect: tuple[Ports, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    ports, job = suspect
    alone_with(monkeypatch, "")
    run_alone(ports, job)
    assert ports.jobs.get(job.id) == job


def test_a_suspect_whose_own_process_dies_is_tried_again_alone(suspect: tuple[Ports, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    ports, job = suspect
    alone_with(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    run_alone(ports, job)
    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert (ended.state, ended.attempts, ended.alone) == (State.QUEUED, 1, True)


def test_a_suspect_that_overruns_its_deadline_again_is_timed_out(suspect: tuple[Ports, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    ports, job = suspect
    own = alone_with(monkeypatch, ENDLESS)
    monkeypatch.setattr(keeper, "BASE_DEADLINE_SECONDS", 0.1)
    run_alone(ports, job)
    ended = ports.jobs.get(job.id)
    assert ended is not None
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "timed_out"
    assert [child.ended() for child in own] == [-signal.SIGKILL]


@pytest.mark.parametrize(
    ("program", "deadline_seconds", "state"),
    [(ENDLESS, 0.1, State.FAILED), ("raise SystemExit(1)", 60.0, State.QUEUED)],
    ids=["overdue", "died"],
)
def test_how_a_suspect_ended_is_written_when_the_database_is_back(
    suspect: tuple[Ports, Job], monkeypatch: pytest.MonkeyPatch, program: str, deadline_seconds: float, state: State
) -> None:
    monkeypatch.setattr(patience, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(keeper, "BASE_DEADLINE_SECONDS", deadline_seconds)
    ports, job = suspect
    alone_with(monkeypatch, program)
    jobs = wiring.Forgetful(ports.jobs._engine, 30)
    run_alone(replace(ports, jobs=jobs), job)
    assert states(ports, [job]) == [state]
    assert jobs.times == 0


def test_a_suspect_that_is_canceled_is_killed_and_stays_canceled(suspect: tuple[Ports, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    ports, job = suspect
    own = alone_with(monkeypatch, ENDLESS)
    held = Held(job)
    working = started(lambda: alone.run(held, ports))
    ports.jobs.cancel("local", job.id)
    held.lost.set()  # as the keeper would
    finish(working)
    assert states(ports, [job]) == [State.CANCELED]
    assert [child.ended() for child in own] == [-signal.SIGKILL]


def test_what_a_loop_holds_is_dropped_even_if_an_attempt_could_not_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = wiring.ports(tmp_path)
    ports = replace(ports, settings=ports.settings.model_copy(update={"workers": 1}))
    for _ in range(3):  # small: one group, of which two have not begun
        wiring.submit(ports, picture())
    loop, kept, stop = loop_of(ports)

    def broken(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setitem(ATTEMPTS, "restore", broken)
    with pytest.raises(RuntimeError):
        loop.run()
    stop()
    assert kept.all() == []
    assert loop._room.idle
    assert loop._seats.acquire(blocking=False), "another bell finds no seat"


def test_a_suspect_waits_for_another_in_the_queue_and_not_in_a_seat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = wiring.ports(tmp_path)
    suspects = [wiring.submit(ports, picture()) for _ in range(2)]
    photo = wiring.submit(ports, picture())
    with ports.jobs._engine.begin() as connection:
        connection.execute(update(jobs_table).where(jobs_table.c.id.in_([job.id for job in suspects])).values(alone=True))
    entered, let_go = threading.Event(), threading.Event()

    def lone(held: Held, ports: Ports) -> None:
        entered.set()
        assert let_go.wait(60)
        ports.jobs.cancel("local", held.job.id)

    monkeypatch.setattr(alone, "run", lone)
    loop, _, stop = loop_of(ports)
    working = threading.Thread(target=loop.run, daemon=True)
    working.start()
    assert entered.wait(60)
    loop.run()  # another bell: the photo goes by, the second suspect waits
    assert states(ports, [*suspects, photo]) == [State.RUNNING, State.QUEUED, State.SUCCEEDED]
    let_go.set()
    working.join(60)
    stop()
    assert states(ports, suspects) == [State.CANCELED] * 2


def test_a_picture_canceled_while_others_have_the_device_never_gets_it(tmp_path: Path) -> None:
    gate = Gate()
    ports = wiring.ports(tmp_path, gate)
    job = wiring.submit(ports, picture())
    (claimed,) = ports.jobs.claim("tests:1", [Lane.INTERACTIVE], 1_000_000, idle=True)
    held = Held(claimed)
    committer = Committer(ports.jobs, ports.blobs, ports.outputs)
    with ports.networks.device:
        working = threading.Thread(target=restore, args=[held, ports, committer], daemon=True)
        working.start()
        eventually("it waits for the device", lambda: held.total == 1)
        ports.jobs.cancel("local", job.id)
        held.lost.set()  # as the keeper would
    working.join(60)
    assert not working.is_alive()
    assert not gate.entered.is_set()
