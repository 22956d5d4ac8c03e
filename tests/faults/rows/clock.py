"""What happens to clocks: they are stepped, and a machine is suspended. No healthy job may pay for that, and nobody waits for it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import psutil
import psycopg

from tests import databases
from tests.faults import clock, pictures
from tests.faults.checker import SUCCEEDS, Told
from tests.faults.row import PICTURES, Repetition, Row, posted
from tests.faults.service import Service

STEP_SECONDS = 600.0
LONG = pictures.slow(1.5)  # two of them run still when the reaper comes by
SHORT = 6  # so many more, which wait for the network behind them, and every seat of the worker is taken


def forward(service: Service) -> list[str]:
    """All clocks at once, as when they were wrong and are set right."""
    clock.step(service.folder, service.engine, STEP_SECONDS)
    return []


def forward_alone(service: Service) -> list[str]:
    """The database's only, as on a machine of its own."""
    clock.step_database(service.folder, service.engine, STEP_SECONDS)
    return []


def back(service: Service) -> list[str]:
    """All clocks at once, just after a request has died that had reserved its key by the old time, and is sent again."""
    with ThreadPoolExecutor(1) as client:
        service.lay("api before accept")
        again = client.submit(service.insist, PICTURES[0])
        service.sprung("api before accept")
        clock.step(service.folder, service.engine, -STEP_SECONDS)
        return [again.result()]


def suspended(service: Service) -> list[str]:
    """All processes at once, the database's and Redis' too; when they go on, only the steady clock has not gone on."""
    with _stopped(service.processes()):
        clock.step(service.folder, service.engine, STEP_SECONDS)
        with _stopped(_servers(service)):
            return []


def struck(strike: Callable[[Service], list[str]]) -> Repetition:
    """While some jobs run and others wait; a few more come after it. `strike` tells of jobs of its own."""

    def once(service: Service, random: Random) -> Told:
        job_ids = [service.insist(picture) for picture in [LONG] * 2 + PICTURES[:1] * SHORT] + posted(service, random, 3)
        while not _some_run_and_some_wait(service, job_ids):  # all were done already, or all are running: more than are done meanwhile
            job_ids.append(service.insist(LONG))
        began = time.monotonic()
        job_ids += strike(service)
        return _all_succeed_at_once(service, job_ids + posted(service, random, 2), began)

    return once


def _some_run_and_some_wait(service: Service, job_ids: list[str]) -> bool:
    rows = service.rows()
    return {"running", "queued"} <= {rows[job_id]["state"] for job_id in job_ids}


def _all_succeed_at_once(service: Service, job_ids: list[str], began: float) -> Told:
    """At the first attempt. Ends are stamped by a clock that jumped meanwhile, so when the fault was is told in the time it shows now."""
    service.ended(job_ids)
    took = time.monotonic() - began
    last = max(row["finished_at"] for job_id, row in service.rows().items() if job_id in job_ids) / 1000
    return Told(dict.fromkeys(job_ids, SUCCEEDS), last - took, attempts=dict.fromkeys(job_ids, 1))


@contextlib.contextmanager
def _stopped(processes: list[psutil.Process]) -> Iterator[None]:
    """SIGSTOP to all, then SIGCONT."""
    try:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # a connection was closed meanwhile
                process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def _servers(service: Service) -> list[psutil.Process]:
    """PostgreSQL's processes; SQLite has none."""
    if service.engine.dialect.name == "sqlite":
        return []
    with psycopg.connect(databases.start_server()) as connection:
        postmaster = psutil.Process(connection.info.backend_pid).parent()
    assert postmaster is not None
    return [postmaster, *postmaster.children()]


CLOCKED = "tiny,trapped,clocked"

ROWS = tuple(
    Row(fault, ("P1", "P3"), struck(strike), wirings=CLOCKED, pictures=(LONG,), long_only=strike in (forward, suspended))
    for fault, strike in (
        ("all clocks stepped forward by ten minutes under load", forward),
        ("the database's clock alone stepped forward by ten minutes", forward_alone),
        ("all clocks stepped back by ten minutes under load", back),
        ("everything suspended for ten minutes", suspended),
    )
)
