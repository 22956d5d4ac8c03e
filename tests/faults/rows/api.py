"""What happens to the API, and to requests."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

from tests.faults.checker import Told
from tests.faults.row import PICTURES, Row, all_succeed
from tests.faults.service import Service

STEPS = (
    "before write", "after write", "before place", "after place", "before sync", "after sync", "before accept", "before take_turn",
    "after take_turn", "after accept", "before ring", "after ring",
)  # fmt: skip
AT_ONCE = 50


def killed_at_a_step(service: Service, random: Random) -> Told:
    """SIGKILL between the upload and the bell; the client sends the same again with the same key."""
    point = f"api {random.choice(STEPS)}"
    service.lay(point)
    job_id = service.insist(random.choice(PICTURES))
    service.sprung(point)
    return all_succeed([job_id])


def the_same_at_once(service: Service, random: Random) -> Told:
    """The same request from 50 clients at the same time."""
    picture, key = random.choice(PICTURES), f"the same {random.random()}".replace(" ", "-")
    with ThreadPoolExecutor(AT_ONCE) as clients:
        answers = list(clients.map(lambda _: service.post(picture, key), range(AT_ONCE)))
    ids = Counter(answer.json()["id"] for answer in answers if answer.status_code == 202)
    others = {answer.status_code for answer in answers} - {202, 409, 503}
    assert not others, others
    return replace(all_succeed(list(ids)), complaints=() if len(ids) == 1 else (f"one request became {len(ids)} jobs",))


ROWS = (
    Row("SIGKILL of the API at each step between upload and bell; sent again", ("P1", "P7"), killed_at_a_step),
    Row(f"the same POST {AT_ONCE} times at once", ("P7",), the_same_at_once),
)
