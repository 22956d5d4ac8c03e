"""What a program can be rewired with: a tiny network, traps at its steps, and the mechanisms it can do without, one by one.

None of it is a switch of the product: each is a function that changes it in the process of a test, given the module that runs.
"""

import ctypes
import importlib.util
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import true

from shared import children
from shared.bells.ringer import BackgroundRinger
from shared.blobs import local
from shared.blobs.local import LocalBlobs, LocalDraft
from shared.database import engine
from shared.database.engine import now_ms
from shared.folders.outputs import OutputDraft, Outputs
from shared.jobs import store
from shared.jobs.job import Job, Move, Success
from shared.jobs.store import Jobs, Publications
from tests.faults import clock, disk, pictures, traps
from trainer.execution import Described, choice
from trainer.execution.openvino import OpenVinoNetwork
from worker import keeper

PROGRAMS = {"gunicorn": "api", "worker.app": "worker", "worker.alone": "alone", "worker.upkeep": "upkeep", "worker.guardian": "guardian"}
OVERDUE_SECONDS = 10.0  # instead of a minute
RESERVED_MS = 2_000  # the same


def _put(holder: Any, **values: Any) -> None:
    """Replace what a module or class has."""
    for name, value in values.items():
        setattr(holder, name, value)


class Tiny:
    """Half the picture, half its neighbour to the left; what the first pixel says besides."""

    multiple = 1
    halo = 1
    bytes_per_pixel = 24
    described = Described("tiny", "float32", "cpu")

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        seconds, poison = pictures.told(inputs[0])
        if poison == "segfault":
            ctypes.string_at(0)
        elif poison == "killed":  # what the kernel does when memory is out
            os.kill(os.getpid(), signal.SIGKILL)
        elif poison == "loop":
            while True:
                pass
        elif poison == "hang":
            ctypes.PyDLL(None).pause()
        time.sleep(seconds)
        mixed: NDArray[np.float32] = np.float32(0.5) * (inputs[0] + np.roll(inputs[0], 1, axis=2))
        return mixed


def small(module: str) -> None:
    """The tiny network."""
    if module in ("worker.app", "worker.alone"):
        from tests.promises.wiring import Running  # brings half of a worker along

        _put(choice, choose=lambda *_: Running(Tiny()))


def lean(module: str) -> None:
    """A machine without TensorFlow, so without a trainer."""
    if module == "server.cli":
        find_spec = importlib.util.find_spec
        _put(importlib.util, find_spec=lambda name, *rest: None if name == "tensorflow" else find_spec(name, *rest))


def hurried(_module: str) -> None:
    """The times that no setting sets, scaled down."""
    _put(keeper, BASE_DEADLINE_SECONDS=OVERDUE_SECONDS)
    _put(store, RESERVED_MS=RESERVED_MS)


def tiny(module: str) -> None:
    """All three."""
    small(module)
    lean(module)
    hurried(module)


def volatile(_module: str) -> None:
    """What is synced is noted: the rest is lost when power fails (tests/faults/disk.py)."""
    sync, home = local._to_the_platter, Path(os.environ["LACUNA_HOME"])

    def noted(descriptor: int) -> None:
        sync(descriptor)
        disk.note(home, descriptor)

    _put(local, _to_the_platter=noted)


def clocked(_module: str) -> None:
    """Clocks that a test steps while everything runs (tests/faults/clock.py)."""
    clock.rewire(Path(os.environ["LACUNA_HOME"]))


def trapped(module: str) -> None:
    """Traps before and after each step: `api before sync`, `worker after succeed` and so on."""
    home, program = Path(os.environ["LACUNA_HOME"]), PROGRAMS.get(module, module)

    def trap(holder: Any, name: str) -> None:
        step = getattr(holder, name)
        called = name.strip("_")

        @wraps(step)
        def between(*arguments: Any, **named: Any) -> Any:
            traps.strike(home, f"{program} before {called}")
            answer = step(*arguments, **named)
            traps.strike(home, f"{program} after {called}")
            return answer

        _put(holder, **{name: between})

    for holder, *names in STEPS:
        for name in names:
            trap(holder, name)


STEPS: tuple[tuple[Any, *tuple[str, ...]], ...] = (
    (LocalDraft, "write", "place"),
    (LocalBlobs, "open", "sync"),
    (OutputDraft, "write"),
    (Outputs, "place"),
    (Jobs, "accept", "accept_found", "publish", "claim", "succeed", "keep", "reap", "release", "retry"),
    (store, "_take_turn"),  # within the transaction that inserts
    (BackgroundRinger, "ring"),
    (Tiny, "run"),  # for a tile
    (OpenVinoNetwork, "run"),
)


# -- ablations: each takes one mechanism away ---------------------------------------------------------------------------


def no_token(_module: str) -> None:
    """A commit by whoever comes, whatever became of the job meanwhile."""

    fenced, committed = store._may, Jobs.succeed

    def succeed(self: Jobs, group: Sequence[Success], published: Publications = None) -> frozenset[tuple[str, int]]:
        current = []
        for success in group:
            job = self.get(success.job.id)
            assert job is not None
            current.append(replace(success, job=replace(success.job, token=job.token)))
        committed(self, current, published)
        return frozenset(success.attempt for success in group)

    _put(Jobs, succeed=succeed)
    _put(store, _may=lambda move: true() if move is Move.SUCCEED else fenced(move))


def no_looking(module: str) -> None:
    """Nobody looks for work by themselves: not the workers, and upkeep does not ring again."""
    if module == "worker.app":
        from worker.looker import Looker

        _put(Looker, start=lambda _: None, stop=lambda _: None)
    if module == "worker.upkeep":
        from worker.upkeep import ringer

        _put(ringer, ring_again=lambda *_: None)


def no_ringing(_module: str) -> None:
    """No bell is ever rung."""
    _put(BackgroundRinger, ring=lambda *_: None)


def no_lone_child(_module: str) -> None:
    """Who has lost a worker runs again among all others."""
    retry = Jobs.retry
    _put(Jobs, retry=lambda self, job, outcome, delay, **_: retry(self, job, outcome, delay))


def no_reservation(_module: str) -> None:
    """Nobody looks whether a request was there before."""
    _put(Jobs, reserve=lambda *_: None)


def row_first(module: str) -> None:
    """The API inserts the row, and publishes the upload behind it."""
    if module != "gunicorn":
        return
    waiting = threading.local()
    place, sync, accept = LocalDraft.place, LocalBlobs.sync, Jobs.accept

    def later(*call: Any) -> None:
        waiting.calls = [*getattr(waiting, "calls", []), call]

    def accepted(*arguments: Any) -> Any:
        job = accept(*arguments)
        for step, *given in waiting.__dict__.pop("calls"):
            step(*given)
        return job

    _put(LocalDraft, place=lambda *given: later(place, *given))
    _put(LocalBlobs, sync=lambda *given: later(sync, *given))
    _put(Jobs, accept=accepted)


def late_sync(_module: str) -> None:
    """The row is written first, and then the files that it names are synced."""
    waiting = threading.local()
    sync = LocalBlobs.sync

    def first(step: Callable[..., Any]) -> Callable[..., Any]:
        def written(*arguments: Any) -> Any:
            answer = step(*arguments)
            for call in waiting.__dict__.pop("calls", []):
                sync(*call)
            return answer

        return written

    def later(*call: Any) -> None:
        waiting.calls = [*getattr(waiting, "calls", []), call]

    _put(LocalBlobs, sync=later)
    _put(Jobs, accept=first(Jobs.accept), succeed=first(Jobs.succeed))


def no_folder_sync(_module: str) -> None:
    """Of what is published the bytes are synced, but not the folders in which its name stands."""
    sync = local._to_the_platter
    _put(local, _to_the_platter=lambda descriptor: None if stat.S_ISDIR(os.fstat(descriptor).st_mode) else sync(descriptor))


def no_file_sync(_module: str) -> None:
    """The folders are synced, but not the bytes."""
    sync = local._to_the_platter
    _put(local, _to_the_platter=lambda descriptor: sync(descriptor) if stat.S_ISDIR(os.fstat(descriptor).st_mode) else None)


def no_sweeper(module: str) -> None:
    """What nobody names stays."""
    if module == "worker.upkeep":
        from worker.upkeep import sweeper

        _put(sweeper, sweep=lambda *_: 0)


def no_settling(module: str) -> None:
    """What was committed and not put in its place stays where it is, and so does what dead attempts left in folders."""
    if module == "worker.upkeep":
        from shared.folders import publishing

        _put(publishing, settle=lambda *_: None)


def place_first(_module: str) -> None:
    """An output gets into its place as soon as it is written, and the row is committed behind it."""
    place = OutputDraft.place

    def placed(self: OutputDraft, key: str) -> None:
        place(self, key)
        self._folder.rename(self._name, PLACES[self._name])

    draft = Outputs.draft

    def drafted(self: Outputs, job: Job) -> OutputDraft:
        made = draft(self, job)
        PLACES[made._name] = (job.output or {})["path"].rsplit("/", 1)[-1]
        return made

    _put(OutputDraft, place=placed)
    _put(Outputs, draft=drafted, sync=lambda *_: None)


PLACES: dict[str, str] = {}  # where parts belong


def no_lifeline(_module: str) -> None:
    """Children do not see that their parent is gone."""
    _put(children, hold_lifeline=lambda *_, **__: None)


def no_reaping(module: str) -> None:
    """Upkeep takes nothing away from whoever fell silent."""
    if module == "worker.upkeep":
        _put(Jobs, reap=lambda *_, **__: [])


def no_silence(module: str) -> None:
    """The guardian waits for ever for those who have fallen silent."""
    if module == "worker.guardian":
        _put(children.Child, silent_seconds=0.0)


def no_deadline(_module: str) -> None:
    """Nothing is ever overdue."""
    _put(keeper.Held, overdue=lambda _: False)


def no_stopping(_module: str) -> None:
    """Whoever works on a job does not ask whether it is still theirs."""
    _put(keeper.Held, check=lambda _: None)


def no_guard(module: str) -> None:
    """What comes out of Redis is given to Kombu as it is."""
    from kombu.transport import redis as plain

    from shared.bells import celery

    if module == "worker.app":
        _put(celery.GuardedTransport, _deliver=plain.Transport._deliver)
        _put(celery.GuardedChannel, _brpop_read=plain.Channel._brpop_read)


def no_pause(_module: str) -> None:
    """Upkeep reaps also when a clock was stepped just now."""
    reap = Jobs.reap
    _put(Jobs, reap=lambda self, pardon, at: reap(self, at=at))


def far_stamps(_module: str) -> None:
    """A time that lies further ahead than any is set is waited for."""
    _put(store, _over=lambda until, _longest_ms, now=None: until <= (now_ms() if now is None else now))


# -- what promises cost (benchmarks/reliability.py) --------------------------------------------------------------------------------------


def no_sync(_module: str) -> None:
    """No file and no folder is synced."""
    _put(local, _to_the_platter=lambda _: None)


def no_leases(_module: str) -> None:
    """Nobody keeps leases, or writes progress."""
    _put(keeper.Keeper, start=lambda _: None, stop=lambda _: None)


def no_lasting_commit(_module: str) -> None:
    """Each result is committed by itself and at once, and SQLite syncs nothing."""
    from worker import committer

    set_up = engine._set_up_sqlite

    def careless(connection: Any, record: Any) -> None:
        set_up(connection, record)
        connection.execute("PRAGMA synchronous=OFF").close()

    _put(engine, _set_up_sqlite=careless)
    _put(committer, GROUP=1)


WIRINGS: dict[str, Callable[[str], None]] = {
    wiring.__name__: wiring
    for wiring in (
        small, lean, hurried, tiny, trapped, clocked, volatile, no_token, no_looking, no_ringing, no_lone_child, no_reservation, row_first,
        late_sync, no_folder_sync, no_file_sync, no_sweeper, no_settling, place_first, no_lifeline, no_reaping, no_silence, no_deadline,
        no_stopping, no_guard, no_pause, far_stamps, no_sync, no_leases, no_lasting_commit,
    )
}  # fmt: skip
