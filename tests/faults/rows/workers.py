"""What happens to workers, and to those who look after them."""

import signal
import time
from random import Random

from tests.faults import pictures
from tests.faults.checker import SUCCEEDS, Told
from tests.faults.row import PICTURES, Repetition, Row, all_succeed, posted
from tests.faults.service import Service
from tests.promises.programs import eventually

STEPS = ("after claim", "before open", "after write", "after place", "before sync", "after sync", "before succeed", "after succeed")
LONG = pictures.slow(4.0)  # longer than the grace
PATIENT = {"LACUNA_SILENCE_SECONDS": "60"}  # the guardian leaves the frozen to upkeep


def killed(module: str) -> Repetition:
    """SIGKILL at a random moment of some work."""

    def once(service: Service, random: Random) -> Told:
        job_ids = posted(service, random)
        time.sleep(random.random())  # the moment is what is random here
        service.part(module).kill()
        return all_succeed(job_ids)

    return once


def killed_at_a_step(service: Service, random: Random) -> Told:
    """SIGKILL of the worker before or after one of the steps of an attempt."""
    point = f"worker {random.choice(STEPS)}"
    service.lay(point)
    job_ids = posted(service, random, 3)
    service.sprung(point)
    return all_succeed(job_ids)


def frozen(service: Service, random: Random) -> Told:
    """SIGSTOP on the brink of the commit, until another worker has done the same job; then SIGCONT: the commit comes too late."""
    if len(service.processes(" worker.app worker")) < 2:
        service.lacunad("worker")
        eventually("two workers run", lambda: len(service.processes(" worker.app worker")) == 2)
    service.lay("worker before sync", "stop")
    job_id = service.insist(random.choice(PICTURES))
    service.sprung("worker before sync")
    began = time.time()
    (asleep,) = eventually("it sleeps", lambda: [one for one in service.processes(" worker.app worker") if one.status() == "stopped"])
    service.ended([job_id])
    ended = service.rows()[job_id]
    service.lay("worker after succeed", "nothing")
    asleep.send_signal(signal.SIGCONT)
    service.sprung("worker after succeed")
    changed = service.rows()[job_id] != ended
    return Told({job_id: SUCCEEDS}, began, complaints=(f"{job_id} was changed after its end",) if changed else ())


def frozen_for_good(service: Service, random: Random) -> Told:
    """SIGSTOP at a random moment, for ever: the guardian hears nothing more of it."""
    job_ids = posted(service, random)
    time.sleep(random.random())
    service.part("worker.app worker").suspend()
    return all_succeed(job_ids)


def stopped(service: Service, random: Random) -> Told:
    """SIGTERM to everything in mid-work, and a new start: what did not end within the grace is given back, and that counts for nothing."""
    job_ids = [*posted(service, random), *(service.insist(LONG) for _ in range(2))]
    eventually("one of them runs", lambda: any(row["state"] == "running" for row in service.rows().values()))
    up = next(process for process in service.started if process is not service.redis and process.poll() is None)
    up.terminate()
    up.wait(60)
    left = service.processes("tests.faults")
    assert not left, f"left behind by a shutdown: {left}"
    service.up()
    return all_succeed(job_ids, 1)


def poisoned(what: str) -> Repetition:
    """Poison among good pictures: it fails, and its neighbours succeed after two attempts at most."""

    def once(service: Service, random: Random) -> Told:
        good = posted(service, random, 3)
        bad = service.insist(pictures.poison(what, random.randrange(1000)))
        good += posted(service, random, 3)
        ends = dict.fromkeys(good, SUCCEEDS) | {bad: frozenset({"failed"})}
        return Told(ends, time.time(), attempts=dict.fromkeys(good, 2))

    return once


ROWS = (
    Row("SIGKILL of the worker at a random moment", ("P1", "P2", "P3"), killed("worker.app worker"), slow=True, long_only=True),
    Row("SIGKILL of the worker at each step of an attempt", ("P1", "P2", "P3", "P9"), killed_at_a_step, slow=True),
    Row("SIGKILL of the guardian", ("P1", "P2", "P3", "P9"), killed("worker.guardian worker"), slow=True),
    Row("SIGKILL of upkeep", ("P1", "P3"), killed("worker.upkeep")),
    Row("SIGSTOP of the worker beyond its lease, then SIGCONT", ("P2", "P3"), frozen, settings=PATIENT, slow=True),
    Row("SIGSTOP of the worker for good", ("P1", "P3"), frozen_for_good, slow=True, long_only=True),
    Row("SIGTERM of everything under load, and a new start", ("P1", "P9"), stopped, pictures=(LONG,), slow=True),
    Row("poison: a crash in native code", ("P5",), poisoned("segfault"), slow=True, long_only=True),
    Row("poison: killed, as when memory is out", ("P5",), poisoned("killed"), slow=True, long_only=True),
    Row("poison: a loop without end", ("P5",), poisoned("loop"), slow=True, long_only=True),
    Row("poison: native code that never returns and holds the GIL", ("P5",), poisoned("hang"), slow=True),
)
