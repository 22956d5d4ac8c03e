"""Who goes first, however much waits."""

import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

from tests.faults import pictures
from tests.faults.checker import Told
from tests.faults.row import PICTURES, Row, all_succeed
from tests.faults.service import Service
from tests.promises.programs import eventually

BULK = pictures.slow(0.06)
MANY = 200
CLIENTS = 4


def posted_among(service: Service, many: int, random: Random) -> tuple[list[str], int, float]:
    """One picture among so many bulk ones. All jobs; how many of bulk started after it was accepted and before it; its wait in seconds."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        bulk = list(clients.map(lambda _: service.insist(BULK, lane="bulk"), range(many)))
    mine = service.insist(random.choice(PICTURES))
    accepted = time.time() * 1000
    rows = service.rows()
    assert any(rows[job_id]["state"] == "queued" for job_id in bulk), "bulk was done before it came to anything"
    eventually("it starts", lambda: service.rows()[mine]["started_at"])
    rows = service.rows()
    started = rows[mine]["started_at"]
    between = sum(accepted < (rows[job_id]["started_at"] or started) < started for job_id in bulk)
    return [*bulk, mine], between, max(0.0, started - accepted) / 1000


def next_to_start(service: Service, random: Random) -> Told:
    """An interactive picture is the next to start on a free thread, whatever waits in bulk."""
    job_ids, between, _ = posted_among(service, MANY, random)
    told = all_succeed(job_ids, 1)
    complaints = (f"{between} bulk pictures started before one that was not",) if between else ()
    return Told(told.posted, told.over, attempts=told.attempts, complaints=complaints)


ROWS = (Row(f"an interactive picture posted among {MANY} of bulk", ("P1",), next_to_start, pictures=(BULK,), slow=True, long_only=True),)
