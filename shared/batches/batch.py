"""What a batch is and what it may become. `store.py` beside it carries these moves out, one statement each."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.jobs.job import State


class BatchState(StrEnum):
    """Where a batch stands. The last three are final, but that a retried picture sets one going again."""

    OPEN = "open"  # takes uploads, and works on those it has
    RUNNING = "running"  # sealed: nothing is added any more
    PAUSED = "paused"  # what runs ends, nothing else begins
    SUCCEEDED = "succeeded"  # every picture has ended, and none failed
    WITH_ERRORS = "completed_with_errors"  # every picture has ended, and some failed
    CANCELED = "canceled"  # the user stopped it, and with it all that had not ended


class BatchMove(StrEnum):
    """What can happen to a batch."""

    SEAL = "seal"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FINISH = "finish"  # its last picture ended
    RETRY = "retry"  # one of its pictures is restored again


GOING = frozenset({BatchState.OPEN, BatchState.RUNNING, BatchState.PAUSED})
ENDED = frozenset({BatchState.SUCCEEDED, BatchState.WITH_ERRORS})

# from which states, and to which; a retry leaves a batch that has not ended as it is
BATCH_MOVES: dict[BatchMove, tuple[frozenset[BatchState], frozenset[BatchState]]] = {
    BatchMove.SEAL: (frozenset({BatchState.OPEN}), frozenset({BatchState.RUNNING})),
    BatchMove.PAUSE: (frozenset({BatchState.RUNNING}), frozenset({BatchState.PAUSED})),
    BatchMove.RESUME: (frozenset({BatchState.PAUSED}), frozenset({BatchState.RUNNING})),
    BatchMove.CANCEL: (GOING, frozenset({BatchState.CANCELED})),
    BatchMove.FINISH: (frozenset({BatchState.RUNNING}), ENDED),
    BatchMove.RETRY: (GOING | ENDED, GOING),
}

# what a picture of a batch is called in the state of its job
SHOWN = {
    State.QUEUED: "waiting", State.RUNNING: "running", State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.CANCELED: "canceled",
}  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """One row, as it was when it was read. Times are milliseconds since 1970 on the database's clock."""

    id: str
    owner_id: str
    state: BatchState
    reason: str | None  # why it is paused or failed, where nobody asked for it
    label: str | None
    params: dict[str, Any]
    created_at: int
    changed_at: int
    finished_at: int | None


@dataclass(frozen=True)
class Counts:
    """How many pictures of a batch there are in each state."""

    waiting: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    canceled: int = 0
    ignored: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.waiting + self.running + self.succeeded + self.failed + self.skipped + self.canceled + self.ignored
