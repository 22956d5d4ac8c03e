"""One thread per worker process commits what has finished: files and folders synced, then one transaction for the group."""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shared import events
from shared.blobs.store import Blobs
from shared.database.engine import AWAY
from shared.folders import publishing
from shared.folders.outputs import Outputs, Placed
from shared.jobs.job import State, Success
from shared.jobs.store import Jobs
from worker import patience
from worker.patience import until_answered

GATHER_SECONDS = 0.005
GROUP = 64
IDLE_SECONDS = 0.1
LARGE_BYTES = 8_000_000  # a large file takes long to sync: nobody else waits for it


@dataclass
class _Waiting:
    success: Success
    answered: threading.Event = field(default_factory=threading.Event)
    ours: bool = False
    error: BaseException | None = None


class Committer:
    """Grouped commits. `succeed` returns when its group's answer is known."""

    def __init__(self, jobs: Jobs, blobs: Blobs, outputs: Outputs) -> None:
        self._jobs = jobs
        self._blobs = blobs
        self._outputs = outputs
        self._placed: list[Placed] = []  # outputs that were renamed, and whose rows do not say so yet
        self._finished: queue.Queue[_Waiting | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Begin to commit."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what waits, then end the thread."""
        self._finished.put(None)
        self._thread.join()

    def succeed(self, success: Success) -> bool:
        """Make a result lasting and final. False if the attempt was no longer ours.

        An unknown answer (the database went away around the COMMIT) is read back from the row, and the commit made again
        if it did not happen. Raises OSError if the result could not be synced.
        """
        while True:
            waiting = _Waiting(success)
            self._finished.put(waiting)
            waiting.answered.wait()
            if waiting.error is None:
                return waiting.ours
            if not isinstance(waiting.error, AWAY):
                raise waiting.error
            job = until_answered(lambda: self._jobs.get(success.job.id))
            if job is None or job.token != success.job.token or job.state is not State.RUNNING:
                return job is not None and job.token == success.job.token and job.state is State.SUCCEEDED
            patience.pause()  # it can be read but not written: the disk is full, or somebody writes for long

    def _run(self) -> None:
        while (first := self._next()) is not None:
            gathered = [first, *self._gather()]
            small = [waiting for waiting in gathered if waiting.success.result["bytes"] <= LARGE_BYTES]
            for group in [small, *([waiting] for waiting in gathered if waiting not in small)]:
                self._commit(group)
        self._settle()

    def _next(self) -> _Waiting | None:
        """What finishes next. If nothing does for a moment, the rows of what was put in its place say so first."""
        if self._placed:
            try:
                return self._finished.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._settle()
        return self._finished.get()

    def _settle(self) -> None:
        if self._placed:
            publishing.publish(self._jobs, self._outputs, self._placed)
            self._placed = []

    def _commit(self, group: Sequence[_Waiting]) -> None:
        if not group:
            return
        began = time.monotonic()
        try:
            successes = [waiting.success for waiting in group]
            self._sync(successes)
            done = self._jobs.succeed(successes, publishing.rows(self._placed))
            self._placed = self._place([success for success in successes if success.attempt in done])
        except Exception as error:  # noqa: BLE001  # belongs to the threads that wait, each of which raises it
            events.emit("committer.failed", cause=error, jobs=[waiting.success.job.id for waiting in group])
            if self._placed and not isinstance(error, AWAY):  # theirs may be the fault, as of a folder that is gone: upkeep tells of them
                self._placed = []
                self._commit(group)
                return
            if len(group) > 1 and not isinstance(error, AWAY):  # one of them is bad: the others must not pay for it
                for waiting in group:
                    self._commit([waiting])
                return
            for waiting in group:
                waiting.error = error
                waiting.answered.set()
        else:
            events.emit("group.committed", jobs=len(group), ms=round((time.monotonic() - began) * 1000, 1))
            for waiting in group:
                waiting.ours = waiting.success.attempt in done
                waiting.answered.set()

    def _sync(self, group: Sequence[Success]) -> None:
        in_place = [success.job for success in group if success.job.output is not None]
        self._outputs.sync(in_place, self._placed)
        self._blobs.sync([success.result_key for success in group if success.result_key is not None and success.job.output is None])

    def _place(self, done: Sequence[Success]) -> list[Placed]:
        """Put their outputs in their places, which the next group's transaction tells. What fails here is left to upkeep."""
        return publishing.place(
            self._outputs, [replace(success.job, result=success.result, input=success.read) for success in done if success.read]
        )

    def _gather(self) -> list[_Waiting]:
        """What else has finished while the group before was committed, or does so within `GATHER_SECONDS`.

        Longer would keep the threads from the next picture; without it nearly every picture paid for a commit of its own.
        """
        gathered: list[_Waiting] = []
        until = time.monotonic() + GATHER_SECONDS
        while len(gathered) < GROUP - 1:
            try:
                item = self._finished.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                self._finished.put(None)  # for the outer loop
                break
            gathered.append(item)
        return gathered
