"""What users do while a worker is about to commit, and what goes wrong within the commit itself."""

import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

from tests.faults import pictures
from tests.faults.checker import SUCCEEDS, Told
from tests.faults.row import PICTURES, Repetition, Row, all_succeed
from tests.faults.service import Service
from tests.promises.programs import eventually

SECONDS = 0.2
TILE_SECONDS = 0.5
TILED = pictures.tiled(TILE_SECONDS)
STOP_SECONDS = 2.0  # after a cancel no tile begins
SHORT = tuple(pictures.slow(SECONDS, seed) for seed in range(3))
CANCELED = frozenset({"canceled"})


def canceled(service: Service, random: Random) -> Told:
    """Cancel about when the job ends: whoever is told that it is canceled never sees a result of it."""
    ends = {}
    for job_id in [service.insist(picture) for picture in SHORT]:
        time.sleep(random.uniform(0, SECONDS))
        answer = service.http.post(f"/v1/jobs/{job_id}/cancel")
        assert answer.status_code in (200, 409), answer.text
        ends[job_id] = CANCELED if answer.status_code == 200 else SUCCEEDS
    return Told(ends, time.time())


def canceled_between_tiles(service: Service, random: Random) -> Told:
    """Cancel in the middle of a picture: it is canceled at once, and two seconds later no further tile begins."""
    job_id = service.insist(TILED)
    service.lay("worker after run", "nothing")
    service.sprung("worker after run")  # the first tile is done
    time.sleep(random.uniform(0, TILE_SECONDS))
    answer = service.http.post(f"/v1/jobs/{job_id}/cancel")
    over = time.time()
    assert (answer.status_code, answer.json()["state"]) == (200, "canceled"), answer.text
    time.sleep(STOP_SECONDS)  # what is promised
    service.lay("worker before run", "nothing")
    eventually("the worker lets go of it", lambda: service.said("job.lost", job_id))
    complaints = () if service.laid("worker before run") else (f"a tile of {job_id} began {STOP_SECONDS} s after its cancel, or later",)
    return Told({job_id: CANCELED}, over, complaints=complaints)


def deleted(service: Service, random: Random) -> Told:
    """Cancel and delete, each again and again from clients of their own, while the job is claimed, runs and ends."""
    job_id = service.insist(random.choice(PICTURES))

    def delete(_: int) -> bool:
        return service.http.delete(f"/v1/jobs/{job_id}").status_code == 204

    def cancel(_: int) -> bool:
        return service.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 200

    with ThreadPoolExecutor(4) as clients:
        gone = clients.map(delete, range(40))
        if random.random() < 0.5:
            list(clients.map(cancel, range(3)))
    done = frozenset({job_id}) if any(gone) else frozenset()
    return Told({job_id: SUCCEEDS | CANCELED}, time.time(), deleted=done)


def struck(fault: str, *points: str) -> Repetition:
    """A trap at one of these points."""

    def once(service: Service, random: Random) -> Told:
        point = random.choice(points)
        service.lay(point, fault)
        job_ids = [service.insist(random.choice(PICTURES)) for _ in range(2)]
        service.sprung(point)
        return all_succeed(job_ids)

    return once


COMMITS = ("worker before succeed", "worker after succeed", "api before accept", "api after take_turn", "api after accept")
WRITES = ("worker before write", "worker after write", "worker before place", "worker before sync", "api before write", "api before sync")

ROWS = (
    Row("cancel about when the job ends", ("P2", "P6"), canceled, pictures=SHORT),
    Row("cancel in the middle of a picture", ("P2", "P6"), canceled_between_tiles),
    Row("cancel and delete again and again while the job runs", ("P2", "P6", "P9"), deleted),
    Row("no answer to a COMMIT", ("P1", "P2"), struck("away", *COMMITS)),
    Row("the disk full in mid-upload or mid-result", ("P1", "P2", "P9"), struck("full", *WRITES)),
)
