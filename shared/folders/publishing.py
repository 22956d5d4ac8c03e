"""Puts committed outputs in their places: by the worker that committed them, or by upkeep if it died in between."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from shared import events
from shared.errors import Refused
from shared.folders.outputs import Outputs, Published
from shared.jobs.job import Job
from shared.jobs.store import Jobs


def publish(jobs: Jobs, outputs: Outputs, committed: Sequence[Job]) -> None:
    """Rename, then say so in the rows. What cannot be put in its place now is found again by upkeep."""
    try:
        published = outputs.publish(committed)
        jobs.publish([job.id for job in committed], [_row(each) for each in published])
    except (OSError, Refused, SQLAlchemyError) as error:
        events.emit("output.unpublished", jobs=[job.id for job in committed], reason=f"{type(error).__name__}: {error}"[:300])


def publish_left(jobs: Jobs, outputs: Outputs) -> None:
    """What was committed and not put in its place."""
    for job in jobs.unpublished():
        publish(jobs, outputs, [job])  # one by one: what fails with one must not hold the others up


def _row(published: Published) -> dict[str, Any]:
    """What is remembered of an output."""
    job = published.job
    result = job.result or {}
    return {
        "place": published.place, "size": published.size, "mtime_ns": published.mtime_ns, "sha256": result["sha256"],
        "source": f"{job.input['folder']}/{job.input['path']}", "source_size": job.input["bytes"],
        "source_mtime_ns": job.input["mtime_ns"], "source_inode": job.input["inode"], "source_sha256": job.input["sha256"],
        "asked": (job.output or {})["asked"],
    }  # fmt: skip
