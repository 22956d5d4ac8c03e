"""What a job is and what it may become. Read this first: every other room only carries these moves out.

`shared/jobs/store.py` holds one statement for each move; docs/architecture.md draws the table below, and
tests/documents/ compares the picture, the table and the database's CHECKs.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection


class State(StrEnum):
    """Where a job stands. The last three are final: nothing leaves them."""

    QUEUED = "queued"  # waits for a worker, or for its `due_at` after a failed attempt
    RUNNING = "running"  # a worker holds a lease on it
    SUCCEEDED = "succeeded"  # its result is stored, with the hash that the row names
    FAILED = "failed"  # its error says why
    CANCELED = "canceled"  # the user stopped it; it never gets a result


class Kind(StrEnum):
    """What a job does."""

    RESTORE = "restore"
    TRAIN = "train"
    EVALUATE = "evaluate"
    INGEST = "ingest"
    PUBLISH = "publish"


class Lane(StrEnum):
    """Which workers may take a job. A worker takes from its first lane as long as something is due there."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
    TRAIN = "train"


PATIENT = (Lane.BULK, Lane.TRAIN)  # lanes of which nothing is begun while the disk is nearly full


class Move(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"  # a worker takes it: token + 1, attempts + 1, a lease
    RENEW = "renew"  # its worker lives
    SUCCEED = "succeed"  # its worker stored a result
    FAIL = "fail"  # its worker met an error that trying again cannot mend
    RETRY = "retry"  # its worker met a passing error
    RELEASE = "release"  # its worker shuts down cleanly: attempts − 1
    REAP = "reap"  # its lease lapsed: the worker is dead or frozen; alone next time
    CANCEL = "cancel"  # its owner stops it: token + 1


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED})

# The table of legal moves: from which states, and to which. There is no other way for a row to change its state.
MOVES: dict[Move, tuple[frozenset[State], frozenset[State]]] = {
    Move.CLAIM: (frozenset({State.QUEUED}), frozenset({State.RUNNING})),
    Move.RENEW: (frozenset({State.RUNNING}), frozenset({State.RUNNING})),
    Move.SUCCEED: (frozenset({State.RUNNING}), frozenset({State.SUCCEEDED})),
    Move.FAIL: (frozenset({State.RUNNING}), frozenset({State.FAILED})),
    Move.RETRY: (frozenset({State.RUNNING}), frozenset({State.QUEUED, State.FAILED})),
    Move.RELEASE: (frozenset({State.RUNNING}), frozenset({State.QUEUED})),
    Move.REAP: (frozenset({State.RUNNING}), frozenset({State.QUEUED, State.FAILED})),
    Move.CANCEL: (frozenset({State.QUEUED, State.RUNNING}), frozenset({State.CANCELED})),
}


def passes(params: dict[str, Any]) -> int:
    """How often the network sees each pixel: once, or in all eight turns and mirrorings."""
    return 8 if params.get("speed") == "best" else 1


def cost_mpx(pixels: int, params: dict[str, Any]) -> float:
    """What a job takes: megapixels that the network sees, and a little for every file."""
    return pixels / 1e6 * passes(params) + 0.01


@dataclass(frozen=True)
class NewJob:
    """What the API decides about a job before it exists. Blobs named here are already stored."""

    id: str
    owner_id: str
    kind: Kind
    lane: Lane
    task: str
    model_name: str
    model_version: int
    # name, bytes, sha256, format, width, height, mode, bits, key; and the same of each of `PARTS`. Of a file that is read in place
    # no key, but `folder`, `path`, `mtime_ns` and `inode`; its sha256 is None until it is read
    input: dict[str, Any]
    params: dict[str, Any]
    pixels: int
    max_attempts: int
    request_id: str
    label: str | None = None
    retry_of: str | None = None
    batch_id: str | None = None
    path: str | None = None  # in its batch
    output: dict[str, Any] | None = None  # of a picture read in place: `folder`, `path` in it, whether to `overwrite` what is there
    progress_unit: str = "tiles"

    @property
    def cost_mpx(self) -> float:
        """What it takes from its flow's share."""
        return cost_mpx(self.pixels, self.params)


@dataclass(frozen=True)
class Job:
    """One row, as it was when it was read. Times are milliseconds since 1970 on the database's clock."""

    id: str
    owner_id: str
    kind: str
    state: State
    version: int  # rises with every change that a user can see
    lane: str
    task: str
    model_name: str
    model_version: int
    label: str | None
    batch_id: str | None
    path: str | None
    input: dict[str, Any]
    output: dict[str, Any] | None
    params: dict[str, Any]
    pixels: int
    token: int  # only ever rises; fences every write of an attempt
    attempts: int  # claims that count against max_attempts; a release gives one back
    max_attempts: int
    turn: float
    alone: bool  # its last attempt lost its worker: it runs in a process of its own
    worker: str | None
    lease_until: int | None
    progress_done: int
    progress_total: int
    progress_unit: str
    result: dict[str, Any] | None
    result_key: str | None
    metrics: dict[str, Any] | None
    notes: list[str]
    error: dict[str, Any] | None
    retry_of: str | None
    request_id: str
    due_at: int
    created_at: int
    changed_at: int
    started_at: int | None
    finished_at: int | None
    expires_at: int | None  # written once that time is over: from then on its files are going
    checkpoint_key: str | None = None  # the blob that a training goes on from
    artifacts: dict[str, dict[str, Any]] | None = None  # by name, what a training leaves: `key`, `bytes`, `sha256`, `type`

    @property
    def seen_pixels(self) -> int:
        """How many pixels the network sees."""
        return self.pixels * passes(self.params)

    @property
    def cost_mpx(self) -> float:
        """As `NewJob.cost_mpx`."""
        return cost_mpx(self.pixels, self.params)

    @property
    def model(self) -> str:
        """The model's name and version: `denoise@1`. Empty where none has a part in it."""
        return f"{self.model_name}@{self.model_version}" if self.model_name else ""

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL


DATASET = "dataset"  # in the input of a job that fills, or learns from, a data set: its id

PARTS = ("mask", "reference")  # of an input, beside the picture; each a file like it

PREVIEWS = ("input", "result", *PARTS)

FIELDS = tuple(field.name for field in dataclasses.fields(Job))


@dataclass(frozen=True)
class Success:
    """What a successful attempt leaves: written in one transaction with the final state."""

    job: Job
    result: dict[str, Any]
    result_key: str | None  # None: it leaves no blob
    notes: list[str]
    metrics: dict[str, Any] | None = None
    units: int = 1  # of progress: all of them are done
    device_seconds: float | None = None  # that the network ran for
    read: dict[str, Any] | None = None  # its input with the hashes of what was read in place
    # what belongs to it in the same transaction, done only if the attempt was still ours
    alongside: "Callable[[Connection], None] | None" = None

    @property
    def attempt(self) -> tuple[str, int]:
        """Whose it is: the job's id, and the token it was claimed with."""
        return self.job.id, self.job.token


def input_keys(given: dict[str, Any]) -> set[str]:
    """The blobs that a job's `input` names: the picture's, its mask's and its reference's."""
    return {part["key"] for part in (given, *(given[name] for name in PARTS if name in given)) if "key" in part}


def rekeyed(given: dict[str, Any], owner: str) -> dict[str, Any]:
    """The same `input`, but that its blobs belong to another job or model."""
    parts = {name: rekeyed(given[name], owner) for name in PARTS if name in given}
    return {**given, **parts, "key": blob_key(owner, given["key"].rsplit("/", 1)[1])}


def again(old: Job, job_id: str, given: dict[str, Any], max_attempts: int, request_id: str) -> NewJob:
    """The same job once more, with the input `given`, in its place in its batch."""
    return NewJob(
        id=job_id, owner_id=old.owner_id, kind=Kind(old.kind), lane=Lane(old.lane), task=old.task, model_name=old.model_name,
        model_version=old.model_version, input=given, params=old.params, pixels=old.pixels, max_attempts=max_attempts,
        request_id=request_id, label=old.label, retry_of=old.id, batch_id=old.batch_id, path=old.path, output=old.output,
    )  # fmt: skip


def blob_key(owner: str, part: str) -> str:
    """The key of a blob: it begins with the id it belongs to. The shard is the id's end: UUIDv7 begins with the time."""
    return f"{owner[-2:]}/{owner}/{part}"


def result_part(token: int) -> str:
    """Results lie under keys that end in the token, so that two attempts never write the same file."""
    return f"result.{token}"


def preview_part(of: str, token: int) -> str:
    """The same for the previews of an attempt, of what is in `PREVIEWS`."""
    return f"preview-{of}.{token}"


def exported_part(token: int) -> str:
    """The same for what a publish job or a training makes."""
    return f"exported.{token}"


def weights_part(token: int) -> str:
    """The same for the weights that a training makes."""
    return f"weights.{token}"


def artifact_part(name: str, token: int, number: int) -> str:
    """The same for what a training leaves on its way, of which there are several under one name, one after the other."""
    return f"{name}.{token}.{number}"
