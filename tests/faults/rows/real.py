"""What is scaled down or stood in for elsewhere, as it is: the times of the defaults, and the shipped network."""

import io
import time
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image

from demo.photos import noisy, photo
from tests.faults import pictures
from tests.faults.checker import SUCCEEDS, Told
from tests.faults.row import Repetition, Row, all_succeed
from tests.faults.service import REAL_TIMES, Service
from tests.promises.programs import eventually

Strike = Callable[[Service], None]

LONG = pictures.slow(4.0)
AGAIN_SECONDS = float(REAL_TIMES["LACUNA_LEASE_SECONDS"]) + 15  # what is promised


def kill_worker(service: Service) -> None:
    """Its guardian puts right what it held."""
    service.part("worker.app worker").kill()


def kill_both(service: Service) -> None:
    """The worker and its guardian: nobody is left who knows, so the lease must lapse."""
    worker, guardian = service.part("worker.app worker"), service.part("worker.guardian worker")
    guardian.kill()
    worker.kill()


def freeze_worker(service: Service) -> None:
    """For good."""
    service.part("worker.app worker").suspend()


def claimed_again(service: Service, random: Random, strike: Strike) -> tuple[str, float, float]:
    """Strike in the middle of a picture. Its job, when that was, and how many seconds later another worker claimed it."""
    service.lay("worker before run", "nothing")
    job_id = service.insist(LONG)
    service.sprung("worker before run")
    time.sleep(random.random())  # the moment is what is random here
    token = service.rows()[job_id]["token"]
    strike(service)
    struck = time.time()
    eventually("it is claimed again", lambda: service.rows()[job_id]["token"] > token)
    return job_id, struck, time.time() - struck


def in_time(strike: Strike) -> Repetition:
    """Claimed again as soon as is promised."""

    def once(service: Service, random: Random) -> Told:
        job_id, struck, seconds = claimed_again(service, random, strike)
        late = (f"{job_id} was claimed again only after {seconds:.1f} s",) if seconds > AGAIN_SECONDS else ()
        return Told({job_id: SUCCEEDS}, struck, complaints=late)

    return once


def enlarged(name: str) -> bytes:
    """One of the demo's photos with noise, four times: the shipped network takes about a second for it."""
    file = io.BytesIO()
    Image.fromarray(np.tile(noisy(photo(name)), (2, 2, 1))).save(file, "PNG", compress_level=1)
    return file.getvalue()


PHOTO = enlarged("coffee")


def killed_while_it_denoises(service: Service, random: Random) -> Told:
    """SIGKILL while the shipped network runs; the checker compares the bytes with those of an undisturbed run."""
    worker = service.part("worker.app worker")
    service.lay("worker before run", "nothing")
    job_ids = [service.insist(PHOTO) for _ in range(2)]
    service.sprung("worker before run")
    time.sleep(random.uniform(0, 0.5))
    worker.kill()
    return all_succeed(job_ids)


def with_real_times(what: str, strike: Strike) -> Row:
    """A row of no scaled time."""
    return Row(
        f"{what}, with the real times",
        ("P1", "P3"),
        in_time(strike),
        wirings="small,lean,trapped",
        settings=REAL_TIMES,
        pictures=(LONG,),
        slow=True,
        long_only=True,
    )


ROWS = (
    with_real_times("SIGKILL of the worker", kill_worker),
    with_real_times("SIGKILL of the worker and its guardian", kill_both),
    with_real_times("SIGSTOP of the worker for good", freeze_worker),
    Row(
        "SIGKILL of the worker while the shipped network runs",
        ("P1", "P2"),
        killed_while_it_denoises,
        wirings="lean,hurried,trapped",
        pictures=(PHOTO,),
        slow=True,
        long_only=True,
    ),
)
