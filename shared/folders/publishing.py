"""Puts committed outputs in their places: by the worker that committed them, or by upkeep if it died in between."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from shared import events
from shared.errors import Refused
from shared.folders import names
from shared.folders.outputs import Outputs, Placed
from shared.jobs.job import Job, State
from shared.jobs.store import Jobs


def place(outputs: Outputs, committed: Sequence[Job]) -> list[Placed]:
    """Rename. What cannot be put in its place now is found again by upkeep."""
    placed = []
    for job in committed:
        try:
            placed.append(outputs.place(job))
        except (OSError, Refused) as error:
            _tell(job, error)
    return placed


def publish(jobs: Jobs, outputs: Outputs, placed: Sequence[Placed]) -> None:
    """Make it last that they were renamed, then say so in their rows; or leave it to upkeep."""
    try:
        outputs.sync([], placed)
        jobs.publish(rows(placed))
    except (OSError, Refused, SQLAlchemyError) as error:
        _tell(placed[0].job, error)


def settle(jobs: Jobs, outputs: Outputs) -> None:
    """Of ended jobs: what was committed and is not known to be in its place is put there; the parts of those that failed go."""
    for job in jobs.unsettled():  # one by one: what fails with one must not hold the others up
        if job.state is State.SUCCEEDED:
            if placed := place(outputs, [job]):
                publish(jobs, outputs, placed)
            continue
        try:
            outputs.tidy(job, range(1, job.token + 1))
            jobs.publish({job.id: None})
        except (OSError, Refused) as error:
            _tell(job, error)


def rows(placed: Sequence[Placed]) -> dict[str, dict[str, Any] | None]:
    """By job, what is remembered of an output; None where it was taken away."""
    return {each.job.id: None if each.size is None else _row(each) for each in placed}


def _row(placed: Placed) -> dict[str, Any]:
    job = placed.job
    result = job.result or {}
    return {
        "place": placed.place, "size": placed.size, "mtime_ns": placed.mtime_ns, "sha256": result["sha256"],
        "source": names.told(f"{job.input['folder']}/{job.input['path']}"), "source_size": job.input["bytes"],
        "source_mtime_ns": job.input["mtime_ns"], "source_inode": job.input["inode"], "source_sha256": job.input["sha256"],
        "asked": (job.output or {})["asked"],
    }  # fmt: skip


def _tell(job: Job, error: Exception) -> None:
    events.emit("output.unpublished", job_id=job.id, reason=f"{type(error).__name__}: {error}"[:300])
