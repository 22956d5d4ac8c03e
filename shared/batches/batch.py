"""What a batch is and what it may become. `store.py` beside it carries these moves out, one statement each."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.jobs.job import Job, State


class BatchState(StrEnum):
    """Where a batch stands. The last four are final, but that a retried picture sets one going again."""

    OPEN = "open"  # takes uploads, and works on those it has
    LISTING = "listing"  # its folder or archive is looked through, and what was found already is worked on
    RUNNING = "running"  # sealed: nothing is added any more
    PAUSED = "paused"  # what runs ends, nothing else begins
    SUCCEEDED = "succeeded"  # every picture has ended, and none failed
    WITH_ERRORS = "completed_with_errors"  # every picture has ended, and some failed
    FAILED = "failed"  # its folder or archive could not be listed; its reason says why
    CANCELED = "canceled"  # the user stopped it, and with it all that had not ended


class BatchMove(StrEnum):
    """What can happen to a batch."""

    SEAL = "seal"
    LISTED = "listed"
    FAIL = "fail"  # it could not be listed
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FINISH = "finish"  # its last picture ended
    RETRY = "retry"  # one of its pictures is restored again


GOING = frozenset({BatchState.OPEN, BatchState.LISTING, BatchState.RUNNING, BatchState.PAUSED})
ENDED = frozenset({BatchState.SUCCEEDED, BatchState.WITH_ERRORS})

# from which states, and to which; a retry leaves a batch that has not ended as it is
BATCH_MOVES: dict[BatchMove, tuple[frozenset[BatchState], frozenset[BatchState]]] = {
    BatchMove.SEAL: (frozenset({BatchState.OPEN}), frozenset({BatchState.RUNNING})),
    BatchMove.LISTED: (frozenset({BatchState.LISTING}), frozenset({BatchState.RUNNING})),
    BatchMove.FAIL: (frozenset({BatchState.LISTING, BatchState.RUNNING, BatchState.PAUSED}), frozenset({BatchState.FAILED})),
    BatchMove.PAUSE: (frozenset({BatchState.LISTING, BatchState.RUNNING}), frozenset({BatchState.PAUSED})),
    BatchMove.RESUME: (frozenset({BatchState.PAUSED}), frozenset({BatchState.RUNNING})),
    BatchMove.CANCEL: (GOING, frozenset({BatchState.CANCELED})),
    BatchMove.FINISH: (frozenset({BatchState.RUNNING}), ENDED),
    BatchMove.RETRY: (GOING | ENDED, GOING),
}

# what a picture of a batch is called in the state of its job
SHOWN = {
    State.QUEUED: "waiting", State.RUNNING: "running", State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.CANCELED: "canceled",
}  # fmt: skip

FULL = "storage_full"  # why a batch is paused by itself: its outputs have no room, and it goes on when they have


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
class Noted:
    """A file of a batch that became no job: what was refused, or passed over. `error` is there exactly where it failed."""

    path: str
    state: str  # failed, skipped or ignored
    error: dict[str, Any] | None = None
    bytes: int | None = None
    sha256: str | None = None
    note: str | None = None  # why it was passed over: done_before, output_exists, no_picture
    noted_at: int = 0  # the database writes it


@dataclass(frozen=True)
class Item:
    """A file of a batch: the job that it is, or why it is none."""

    path: str
    job: Job | None = None
    noted: Noted | None = None

    @property
    def state(self) -> str:
        """What it is called in a batch."""
        return SHOWN[self.job.state] if self.job is not None else self.noted.state if self.noted is not None else "ignored"


@dataclass(frozen=True)
class Counts:
    """How many files of a batch there are in each state."""

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
