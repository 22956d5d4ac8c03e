"""A child that learns or measures, in a folder of its own, and what it says: a JSON object a line on its standard output.

It knows no database: it reads an order and writes files (trainer/running.py, trainer/measuring.py). It may die at any moment.
"""

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared import children
from shared.datasets.packed import INDEX, PIXELS
from shared.datasets.store import Dataset
from shared.errors import Fault, Refused, Transient
from shared.jobs.job import DATASET
from worker.ending import Stopped
from worker.keeper import Held
from worker.patience import until_answered
from worker.wiring import Ports

LOOK_SECONDS = 0.5
SILENT_SECONDS = 120.0  # of a child that beats each second, also while TensorFlow compiles
LAST_SECONDS = 5.0  # for a child that has said its last word
STOP_SECONDS = 20.0  # for a child to end its step and leave what it has, within a worker's grace

Said = dict[str, Any]


def follow(held: Held, module: str, folder: Path) -> Iterator[Said]:
    """Start the child and tell what it says, until it is done. It is gone afterwards, however this ends.

    Raises what the child said went wrong, `LeaseLost`, `Stopped` when the worker shuts down, `Transient` when the child died or hangs.
    """
    stopping_since: float | None = None
    with _running(module, folder) as (child, said):
        while True:
            held.check()
            if held.stopping.is_set() and stopping_since is None:
                stopping_since = time.monotonic()
                child.terminate()
            if stopping_since is not None and time.monotonic() - stopping_since > STOP_SECONDS:
                raise Stopped
            child.listen(0)
            if child.silent_seconds > SILENT_SECONDS:
                raise Transient("timed_out", "The process that learns fell silent; it goes on where it last stood.")
            try:
                event = said.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                raise _died(_status(child), stopping=stopping_since is not None)
            if event["event"] == "fault":
                kind = Transient if event["retryable"] else Refused if event["refused"] else Fault
                raise kind(event["code"], event["detail"])
            yield event
            if event["event"] == "stopped":
                raise Stopped
            if event["event"] == "done":
                return


def _status(child: children.Child) -> int:
    """How a child ended that says nothing more."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(LAST_SECONDS)
    child.kill()
    return child.process.wait()


def _died(status: int, *, stopping: bool) -> Exception:
    if stopping:  # before it listened for it
        return Stopped()
    return Transient("worker_lost", f"The process that learns ended with status {status}.")


@contextmanager
def _running(module: str, folder: Path) -> Iterator[tuple[children.Child, "queue.Queue[Said | None]"]]:
    """The child, and what it says; None when it says no more."""
    environ = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(folder / "keras")}
    child = children.Child(children.python(module, str(folder)), environ, stdout=subprocess.PIPE)
    said: queue.Queue[Said | None] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(ValueError):  # half a line: it was killed
            for line in child.process.stdout or ():
                said.put(json.loads(line))
        said.put(None)

    reader = threading.Thread(target=read, name="follower", daemon=True)
    reader.start()
    try:
        yield child, said
    finally:
        child.kill()
        reader.join()
        child.close()


def fetch_data(held: Held, ports: Ports, folder: Path) -> Dataset:
    """The data set of a job, as files that a child maps into memory. Raises `Refused` if it was deleted meanwhile."""
    dataset = until_answered(lambda: ports.datasets.usable(held.job.input[DATASET], held.job.owner_id))
    (folder / "dataset").mkdir()
    for part, key in ((INDEX, dataset.index_key), (PIXELS, dataset.pixels_key)):
        try:
            ports.blobs.fetch(key or "", folder / "dataset" / part)
        except FileNotFoundError as error:
            raise Fault("internal", "The files of the data set are gone; make it anew.") from error
    return dataset
