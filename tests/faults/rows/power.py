"""What happens when power fails: everything ends at once, and the disk has forgotten what was not synced."""

from concurrent.futures import ThreadPoolExecutor
from random import Random

from tests.faults import disk
from tests.faults.checker import Told
from tests.faults.row import PICTURES, Row, all_succeed
from tests.faults.service import Service
from tests.promises.programs import eventually

STEPS = tuple(
    f"{program} {when} {step}"
    for program, steps in (("api", ("sync", "accept", "ring")), ("worker", ("sync", "succeed")))
    for step in steps
    for when in ("before", "after")
)
CLIENTS = 3


def cut_at_a_step(service: Service, random: Random) -> Told:
    """A program stands before or after one of the steps between the bytes and their row; what nobody was told of is sent again."""
    point = random.choice(STEPS)
    service.lay(point, "stop")
    some = [random.choice(PICTURES) for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        posting = [clients.submit(service.insist, picture) for picture in some]
        service.sprung(point)
        _power_fails(service)
        service.up()
    return all_succeed([job.result() for job in posting])


def _power_fails(service: Service) -> None:
    for process in service.started:
        if process is not service.redis and process.poll() is None:
            process.kill()
            process.wait()
    for left in service.processes("tests.faults"):
        left.kill()
    eventually("nothing runs", lambda: not service.processes("tests.faults"))
    disk.cut(service.folder)


ROWS = (
    Row(
        "power fails at a step between the bytes and their row",
        ("P1", "P2"),
        cut_at_a_step,
        wirings="tiny,trapped,volatile",
        slow=True,
        long_only=True,
    ),
)
