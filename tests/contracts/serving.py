"""A house with a worker in it, whose network changes nothing: what is sent is what comes back, but for what files do to it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests import damaged
from tests.contracts.api_fixtures import House, code
from tests.promises import wiring
from worker.artifacts import Artifacts
from worker.wiring import Networks, Ports


def worker_of(house: House) -> Ports:
    """A worker's ports on the house's own database and folder."""
    ports = house.ports
    artifacts = Artifacts(ports.models, ports.blobs, ports.settings.models)
    networks = Networks(wiring.Running(wiring.Identity()), artifacts.folder, wiring.CALL_BYTES)
    return Ports(
        ports.settings, ports.jobs, ports.workers, ports.batches, ports.blobs, ports.outputs, ports.ringer, artifacts, networks,
        ports.datasets,
    )  # fmt: skip


def served(house: House, picture: bytes, name: str, **fields: Any) -> tuple[Any, Any]:
    """(the job, the answer with its file) of one picture, after a worker had it."""
    job = house.restored(picture=picture, name=name, **fields)
    wiring.work(worker_of(house))
    shown = house.get(f"/v1/jobs/{job.id}").json
    return shown, house.get(f"/v1/jobs/{job.id}/result")


def sent(house: House, seeds: Iterable[int]) -> Counter[str]:
    """What became of damaged files: a code they were refused with, `succeeded`, or `failed`. Asserts that nothing else is left."""
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        answer = house.restore(damaged.damaged(seed))
        if answer.status_code != 202:
            outcomes[code(answer)] += 1
    wiring.work(worker_of(house))
    cursor = ""
    while cursor is not None:
        page = house.get(f"/v1/jobs?limit=500{cursor and f'&cursor={cursor}'}").json
        cursor = page["next"]
        for job in page["items"]:
            outcomes[job["state"]] += 1
            assert job["state"] == "succeeded" or job["error"]["code"] in damaged.REFUSALS, job
    assert set(outcomes) <= damaged.REFUSALS | {"succeeded", "failed"}, outcomes
    files = 4 * outcomes["succeeded"] + outcomes["failed"]  # each job's upload; the results, with two previews each
    assert len(house.files()) == files, "something lies in the store that belongs to no job"
    return outcomes
