"""One thread per worker process commits what has finished: files and folders synced, then one transaction for the group."""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from shared import events
from shared.blobs.store import Blobs
from shared.jobs.job import State, Success
from shared.jobs.store import Jobs

GATHER_SECONDS = 0.02
GROUP = 64


@dataclass
class _Waiting:
    success: Success
    answered: threading.Event = field(default_factory=threading.Event)
    ours: bool = False
    error: BaseException | None = None


class Committer:
    """Grouped commits. `succeed` returns when its group's answer is known."""

    def __init__(self, jobs: Jobs, blobs: Blobs) -> None:
        self._jobs = jobs
        self._blobs = blobs
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

        Raises OSError if the result could not be synced. After an unknown answer of the database the row is read.
        """
        waiting = _Waiting(success)
        self._finished.put(waiting)
        waiting.answered.wait()
        if isinstance(waiting.error, SQLAlchemyError):
            return self._read(success)
        if waiting.error is not None:
            raise waiting.error
        return waiting.ours

    def _run(self) -> None:
        while (first := self._finished.get()) is not None:
            group = [first, *self._gather()]
            try:
                self._blobs.sync([waiting.success.result_key for waiting in group])
                done = self._jobs.succeed([waiting.success for waiting in group])
                for waiting in group:
                    waiting.ours = waiting.success.job.id in done
            except Exception as error:  # noqa: BLE001  # belongs to the threads that wait, each of which raises it
                events.emit("committer.failed", cause=error, jobs=len(group))
                for waiting in group:
                    waiting.error = error
            for waiting in group:
                waiting.answered.set()

    def _gather(self) -> Sequence[_Waiting]:
        gathered: list[_Waiting] = []
        while len(gathered) < GROUP - 1:
            try:
                item = self._finished.get(timeout=GATHER_SECONDS)
            except queue.Empty:
                break
            if item is None:
                self._finished.put(None)  # for the outer loop
                break
            gathered.append(item)
        return gathered

    def _read(self, success: Success) -> bool:
        """The COMMIT may have happened or not: the row knows. Raises SQLAlchemyError while the database is away."""
        job = self._jobs.get(success.job.id)
        return job is not None and job.state is State.SUCCEEDED and job.token == success.job.token
