"""How an attempt ends that raised an error: by shared/errors.py, written into its row."""

import errno
import random

from shared import events
from shared.errors import Transient, outcome_of
from shared.jobs.job import Kind
from shared.jobs.store import LONGEST_DELAY_SECONDS
from worker.keeper import Held, LeaseLost
from worker.patience import until_answered
from worker.wiring import Ports

RETRY_SECONDS = (1.0, LONGEST_DELAY_SECONDS)


class Stopped(Exception):
    """The worker shuts down, and the child has left what it had: the attempt is given back."""


def end(held: Held, ports: Ports, error: BaseException) -> None:
    """Write how an attempt ended that raised `error`: failed for good, queued again, given back; or nothing, if it was lost."""
    if isinstance(error, LeaseLost):
        events.emit("job.lost", job_id=held.job.id, token=held.job.token)
        return
    held.conclude()
    if isinstance(error, Stopped):
        until_answered(lambda: ports.jobs.release(held.job))
        return
    if held.job.output is not None and held.job.batch_id is not None and _is_full(error):
        batch_id = held.job.batch_id
        until_answered(lambda: ports.batches.pause_full(batch_id))  # first: what is given back must not be claimed at once
        until_answered(lambda: ports.jobs.release(held.job))
        return
    if held.job.kind in (Kind.TRAIN, Kind.EVALUATE) and _is_full(error):  # its lane is paused until there is room: it costs no attempt
        until_answered(lambda: ports.jobs.release(held.job))
        return
    outcome = outcome_of(error)
    if outcome.code == "internal":
        events.emit("attempt.crashed", cause=error, job_id=held.job.id, request_id=held.job.request_id)
    if outcome.retryable:
        delay = random.uniform(*RETRY_SECONDS)  # noqa: S311  # jitter
        until_answered(lambda: ports.jobs.retry(held.job, outcome, delay))
    else:
        until_answered(lambda: ports.jobs.fail(held.job, outcome))


def _is_full(error: BaseException) -> bool:
    """Whether the disk of the outputs has no room: a matter of the whole batch, which waits, and not of the picture."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, Transient) and error.code == "storage_full"
