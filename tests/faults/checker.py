"""The one checker. After every repetition of every row of the matrix it looks at all that was accepted, and at what is left."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.blobs.local import DRAFTS, LocalBlobs
from shared.jobs.job import blob_key, preview_part
from tests.faults.service import FINAL, Service
from tests.promises.programs import eventually

SUCCEEDS = frozenset({"succeeded"})


@dataclass(frozen=True)
class Told:
    """What a repetition says of itself: which jobs it was answered 202 for, and how each may end."""

    posted: Mapping[str, frozenset[str]]  # id → final states
    over: float  # when the fault was, in seconds since 1970
    deleted: frozenset[str] = frozenset()
    attempts: Mapping[str, int] = field(default_factory=dict)  # id → at most; else as many as the row allows
    complaints: tuple[str, ...] = ()  # what only the repetition itself could see


class Checker:
    """Of one service. `undisturbed` is what each picture's result is, by the hash of the picture."""

    def __init__(self, service: Service, undisturbed: Mapping[str, str]) -> None:
        self._service = service
        self._undisturbed = undisturbed
        self._known: set[str] = set(service.rows())

    def after(self, told: Told) -> tuple[list[str], float]:
        """What promises were broken, and how many seconds after the fault the last job ended. Waits until all are final."""
        self._service.ended(list(told.posted))
        rows = self._service.rows()
        found = list(told.complaints)
        for job_id, ends in told.posted.items():
            found += self._of(job_id, ends, told, rows.get(job_id))
        extra = rows.keys() - told.posted.keys() - self._known
        found += [f"{job_id} exists, and nobody was told of it" for job_id in extra]
        found += _uncounted(self._service, rows)
        self._known |= rows.keys()
        ended = [rows[job_id]["finished_at"] for job_id in told.posted if job_id in rows]
        return found, max(0.0, max(ended, default=0) / 1000 - told.over)

    def _of(self, job_id: str, ends: frozenset[str], told: Told, row: dict[str, Any] | None) -> Iterable[str]:
        if row is None:
            return [] if job_id in told.deleted else [f"{job_id} was accepted, and is gone"]
        complaints = []
        if row["state"] not in ends:
            complaints.append(f"{job_id} {row['state']}, not {' or '.join(sorted(ends))}: {row['error']}")
        if row["attempts"] > min(row["max_attempts"], told.attempts.get(job_id, row["max_attempts"])):
            complaints.append(f"{job_id} took {row['attempts']} attempts")
        return complaints + list(self._result(job_id, row))

    def _result(self, job_id: str, row: dict[str, Any]) -> Iterable[str]:
        answer = self._service.http.get(f"/v1/jobs/{job_id}/result")
        if row["state"] != "succeeded":
            if answer.status_code == 200 or row["result_key"] is not None:
                yield f"{job_id} {row['state']}, and has a result"
            return
        if answer.status_code != 200:
            yield f"{job_id} succeeded, and its result is answered with {answer.status_code}"
            return
        sha256 = hashlib.sha256(answer.content).hexdigest()
        if sha256 != row["result"]["sha256"]:
            yield f"{job_id} has another result than its row says"
        if sha256 != self._undisturbed.get(row["input"]["sha256"]):
            yield f"{job_id} has another result than an undisturbed run"

    def at_the_end(self) -> list[str]:
        """What is left behind, once upkeep had its time to sweep and everything was stopped."""
        service = self._service
        blobs = LocalBlobs(service.folder / "blobs")
        rows = service.rows().values()
        named = {key for row in rows for key in _named(row)}
        allowed = named.union(*(_allowed(row) for row in rows))

        def stray() -> set[str]:
            drafts = {path.name for path in (service.folder / "blobs" / DRAFTS).glob("*")}
            return ({blob.key for blob in blobs.stored()} - allowed) | drafts

        try:
            eventually("what no row names is swept", lambda: not stray())
        except AssertionError:
            return [f"{key} was left behind" for key in stray()]
        missing = named - {blob.key for blob in blobs.stored()}
        for process in service.started:
            if process is not service.redis and process.poll() is None:
                process.terminate()
                process.wait(60)
        complaints = [f"{key} is missing" for key in missing]
        try:  # an orphan has the grace of a shutdown
            eventually("nothing runs", lambda: not service.processes("tests.faults"))
        except AssertionError:
            complaints += [f"{process.pid} still runs: {process.cmdline()}" for process in service.processes("tests.faults")]
        return complaints


def _named(row: dict[str, Any]) -> set[str]:
    """The blobs that a final row names."""
    if row["output"] is not None:  # it lies in folders of the user's
        return set()
    keys = {part["key"] for part in (row["input"], *(row["input"].get(name, {}) for name in ("mask", "reference"))) if "key" in part}
    if row["state"] == "succeeded":
        keys |= (
            {row["result_key"]} - {None}
            if row["kind"] != "restore"
            else {row["result_key"], *(blob_key(row["id"], preview_part(of, row["token"])) for of in ("input", "result"))}
        )
    return keys


def _allowed(row: dict[str, Any]) -> set[str]:
    """What may be there besides: the preview of a picture whose job failed."""
    return {blob_key(row["id"], preview_part("input", row["token"]))} if row["state"] == "failed" else set()


def _uncounted(service: Service, rows: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Whether what the API lists is what there is, state by state."""
    listed: Counter[str] = Counter()
    cursor = ""
    while cursor is not None:
        page = service.http.get("/v1/jobs", params={"limit": 200, **({"cursor": cursor} if cursor else {})}).json()
        listed.update(job["state"] for job in page["items"])
        cursor = page["next"]
    there = Counter(row["state"] for row in rows.values())
    return [f"{there[state]} jobs are {state}, and {listed[state]} are listed" for state in FINAL if there[state] != listed[state]]
