"""The worker process: Celery's threads hear bells, a looker looks, a keeper keeps leases, a committer commits.

Started by `worker/guardian.py` as `worker`, which restores, or as `trainer`, which takes the jobs that need TensorFlow, one at
a time. The guardian kills and restarts it when it falls silent.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from sqlalchemy.exc import SQLAlchemyError

from shared import children, events, metrics, settings
from shared.bells.celery import celery_app
from shared.jobs.job import Kind, Lane
from shared.workers.store import Worker, Workers
from trainer.execution import choice
from worker import memory, tasks, wiring
from worker.committer import Committer
from worker.keeper import Keeper
from worker.looker import Looker
from worker.loop import Loop

OWN_CHILD = (Kind.TRAIN, Kind.EVALUATE)  # that never run alone: what they cost this process, they cost it again
LANES = {"worker": (Lane.INTERACTIVE, Lane.BULK), "trainer": (Lane.TRAIN,)}
TRAINERS_NICENESS = 10


def main() -> None:
    """Run until SIGTERM."""
    part = sys.argv[1]
    lanes, trains = LANES[part], part == "trainer"
    chosen = settings.load()
    events.configure()
    metrics.start(chosen.metrics)
    children.hold_lifeline(last_seconds=chosen.grace_seconds + 5)
    children.expendable()
    if trains:
        os.nice(TRAINERS_NICENESS)

    try:
        ports = wiring.make(chosen, "tensorflow" if trains else chosen.executor)
    except choice.CannotRun as error:
        sys.exit(str(error))
    worker = Worker(f"{socket.gethostname()}:{os.getpid()}", list(lanes), **vars(ports.networks.executor.describe()))
    keeper = Keeper(ports.jobs, chosen.renew_seconds, lambda: ports.workers.present(worker))
    committer = Committer(ports.jobs, ports.blobs, ports.outputs)
    threads = 1 if trains else chosen.workers
    pixels = 1 if trains else memory.budget(chosen.memory).pixels  # one: whatever it costs, one job at a time
    loop = Loop(ports, keeper, committer, worker.id, lanes, pixels, threads)
    looker = Looker(loop, chosen)

    def stop(**_: Any) -> None:
        events.emit("part.stopping", part=part)
        loop.stop()
        timer = threading.Timer(chosen.grace_seconds, _give_up, [loop])
        timer.daemon = True
        timer.start()

    def stop_early(*_: Any) -> None:
        """SIGTERM before Celery listens for it."""
        stop()
        raise SystemExit

    signals.worker_shutting_down.connect(stop, weak=False)
    signals.setup_logging.connect(lambda **_: None, weak=False)  # ours is set up already
    app = celery_app(chosen.redis)
    tasks.register(app, loop)
    signal.signal(signal.SIGTERM, stop_early)
    children.beat(lambda: _beat(keeper))
    with contextlib.ExitStack() as ending:  # SIGTERM may come before all have started
        ending.callback(_leave, ports.workers, worker)
        for started in (keeper, committer, looker):
            started.start()
            ending.callback(started.stop)
        _listen(app, lanes, threads)


def _leave(workers: Workers, worker: Worker) -> None:
    with contextlib.suppress(SQLAlchemyError):  # the database is away: it is forgotten after a lease
        workers.leave(worker)


def _listen(app: Celery, lanes: Sequence[Lane], threads: int) -> None:
    """Hear bells until SIGTERM."""
    warnings.filterwarnings("ignore", category=SecurityWarning)  # JSON only: root or not, no message can run code
    arguments = ["--pool=threads", f"--concurrency={threads}", f"--queues={','.join(lanes)}", "--without-gossip", "--without-mingle"]
    app.worker_main(["--quiet", "worker", *arguments, "--without-heartbeat"])


def _beat(keeper: Keeper) -> dict[str, Any]:
    """For the guardian: what is held, what of it has begun, and what is overdue."""
    held = keeper.all()
    return {
        "held": [item.key for item in held],
        "begun": [item.key for item in held if item.began is not None and (not item.job.alone or item.job.kind in OWN_CHILD)],
        "overdue": [item.key for item in held if item.overdue() and not item.job.alone],
    }


def _give_up(loop: Loop) -> None:
    """The grace is over: give back what has not ended, and go."""
    try:
        loop.release()
    finally:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
