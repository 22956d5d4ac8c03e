"""A job whose last attempt lost its worker runs in a process of its own, one at a time: it can be killed alone.

`run` is the worker's side; `main` is the child: the same attempt, with its own keeper and committer.
"""

import json
import os
import subprocess
from dataclasses import asdict

from shared import children, events, metrics, settings
from shared.errors import CODES, Outcome
from shared.jobs.job import Job, Kind, State
from worker import wiring
from worker.attempts import ATTEMPTS
from worker.committer import Committer
from worker.keeper import Held, Keeper
from worker.listing import LISTING_SECONDS
from worker.patience import until_answered
from worker.publishing import PUBLISH_SECONDS
from worker.wiring import Ports

ENVIRONMENT = "LACUNA_CHILD_JOB"
LOOK_SECONDS = 0.5
LIMITS: dict[str, float] = {Kind.PUBLISH: PUBLISH_SECONDS, Kind.INGEST: 4 * LISTING_SECONDS}  # of the others: what their pixels allow


def run(held: Held, ports: Ports) -> None:
    """Make the attempt in a child. A child that dies or overruns its deadline costs only this job."""
    held.begin(LIMITS.get(held.job.kind))
    child = children.Child(children.python("worker.alone"), {ENVIRONMENT: json.dumps(asdict(held.job))})
    try:
        while child.ended() is None and not held.lost.is_set() and not held.overdue():
            try:
                child.process.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                child.listen(0)
        died = child.ended()
    finally:
        child.kill()
        child.close()
    if died == 0 or held.lost.is_set():
        return
    if died is None:
        until_answered(lambda: ports.jobs.fail(held.job, _outcome("timed_out")))
    else:
        until_answered(lambda: ports.jobs.retry(held.job, _outcome("worker_lost"), 1.0, alone=True))


def main() -> None:
    """The child: one attempt, then the end."""
    children.hold_lifeline()
    children.expendable()
    events.configure()
    job = Job(**json.loads(os.environ.pop(ENVIRONMENT)))
    chosen = settings.load()
    metrics.start(chosen.metrics)
    ports = wiring.make(chosen, chosen.executor)
    keeper = Keeper(ports.jobs, ports.settings.renew_seconds)
    committer = Committer(ports.jobs, ports.blobs, ports.outputs)
    keeper.start()
    committer.start()
    with events.context(request_id=job.request_id, job_id=job.id):
        ATTEMPTS[job.kind](keeper.hold(Job(**{**asdict(job), "state": State(job.state)})), ports, committer)
    committer.stop()


def _outcome(code: str) -> Outcome:
    return Outcome(code, CODES[code].title, CODES[code].advice, retryable=code == "worker_lost")


if __name__ == "__main__":
    main()
