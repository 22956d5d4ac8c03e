"""What happens to folders that are restored in place: what must be there at the end, and what not."""

import hashlib
import itertools
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.checker import SUCCEEDS, Told
from tests.faults.row import PICTURES, Row
from tests.faults.service import FINAL, Service
from tests.promises.programs import eventually

ANYWHERE = Path(tempfile.gettempdir()).resolve()
ROOTS = {"LACUNA_ROOTS": f"read:{ANYWHERE},write:{ANYWHERE}"}
STEPS = (
    "before accept_found", "after accept_found", "after write", "before succeed", "after succeed", "before place", "after place",
    "before publish", "after publish",
)  # fmt: skip
ENDED = ("succeeded", "completed_with_errors", "failed", "canceled")

_numbers = itertools.count()


def killed_in_place(service: Service, random: Random) -> Told:
    """SIGKILL of the worker before or after a step of listing, restoring or putting in place."""
    source, out = _folders(service, random)
    point = f"worker {random.choice(STEPS)}"
    service.lay(point)
    batch = _begun(service, source, out)
    service.sprung(point)
    struck = time.time()
    return _what_is_there(service, batch, out, struck)


def canceled_in_place(service: Service, random: Random) -> Told:
    """The batch is canceled about when a picture of it is committed and put in its place."""
    source, out = _folders(service, random)
    point = f"worker {random.choice(STEPS[2:])}"
    service.lay(point, "nothing")
    batch = _begun(service, source, out)
    service.sprung(point)
    service.http.post(f"/v1/batches/{batch}/cancel")
    return _what_is_there(service, batch, out, time.time())


def _folders(service: Service, random: Random) -> tuple[Path, Path]:
    place = service.folder.parent / f"folder {next(_numbers)}"
    source, out = place / "in", place / "out"
    for number in range(4):
        file = source / random.choice(("", "sub")) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(random.choice(PICTURES))
    out.mkdir()
    return source, out


def _begun(service: Service, source: Path, out: Path) -> str:
    answer = service.http.post("/v1/batches", json={"folder": str(source), "out": str(out)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _what_is_there(service: Service, batch: str, out: Path, struck: float) -> Told:
    """Every output of a picture that succeeded, with the bytes that its row names, and nothing else."""
    ended: dict[str, Any] = eventually("the batch ends", lambda: _over(service, batch))
    eventually("its jobs end", lambda: all(row["state"] in FINAL for row in service.rows().values() if row["batch_id"] == batch))
    rows = {row["path"]: row for row in service.rows().values() if row["batch_id"] == batch and row["path"] is not None}
    wanted = {path: row["result"]["sha256"] for path, row in rows.items() if row["state"] == "succeeded"}

    def there() -> dict[str, str]:
        files = [path for path in out.rglob("*") if path.is_file()]
        return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    try:
        eventually("what belongs there is there", lambda: there() == wanted)
        complaints = []
    except AssertionError:
        complaints = [f"outputs are {there()}, not {wanted}"]
    if ended["state"] != "canceled":
        complaints += [f"the batch is {ended['state']}, with {ended['counts']}"] if ended["counts"]["succeeded"] != 4 else []
    for row in [row for row in service.rows().values() if row["batch_id"] == batch and row["path"] is None]:
        service.http.delete(f"/v1/jobs/{row['id']}")  # what listed it has no result to be checked
    ends = SUCCEEDS if ended["state"] != "canceled" else frozenset(FINAL)
    return Told({row["id"]: ends for row in rows.values()}, struck, complaints=tuple(complaints))


def _over(service: Service, batch: str) -> dict[str, Any] | None:
    found: dict[str, Any] = service.http.get(f"/v1/batches/{batch}").json()
    return found if found["state"] in ENDED else None


ROWS = (
    Row("SIGKILL of the worker at each step of a folder in place", ("P1", "P2", "P9"), killed_in_place, settings=ROOTS, slow=True),
    Row("a folder in place canceled about when its outputs get there", ("P2", "P6", "P9"), canceled_in_place, settings=ROOTS, slow=True),
)
