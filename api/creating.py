"""What every POST that creates a job has in common: `Idempotency-Key`, `Prefer: wait`, and the answer."""

import contextlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from flask import Response, json, request
from pydantic import BaseModel

from api import jobs as jobs_api
from api import watch
from api.owner import owner_id
from api.uploads import Upload, receiving
from api.wiring import Ports
from shared import disk
from shared.errors import Refused, Transient
from shared.jobs.job import Job
from shared.jobs.store import Replay, Reservation

KEY = re.compile(r"[\x21-\x7e]{1,255}")
LONGEST_WAIT = 60
RESTART_SECONDS = 5  # until a service that stops may be there again

HEADERS = {
    "Idempotency-Key": "yours, up to 255 visible ASCII characters: the same key and request give the same job",
    "Prefer": "wait=N holds the answer up to N ≤ 60 seconds until the job is final",
}
PROBLEMS_WITHOUT_BODY = (
    "idempotency_in_progress", "unknown_field", "invalid_field", "idempotency_mismatch", "too_many_jobs", "database_busy", "storage_full",
    "shutting_down",
)  # fmt: skip
PROBLEMS = (
    *PROBLEMS_WITHOUT_BODY, "malformed_multipart", "upload_stalled", "upload_too_large", "callbacks_not_offered", "too_many_uploads",
)  # fmt: skip

Made = TypeVar("Made")
Accept = Callable[[Upload, Reservation | None, str], Job]  # (upload, reservation, fingerprint): checks, blobs, then the row


def create(ports: Ports, accept: Accept, body: bool = True, said: dict[str, str] | None = None) -> Response:
    """Receive the body, let `accept` make a job of it, or replay the job of its key; ring; answer.

    Without `body` none is expected: the address says all, or a JSON body that was read already, of which `said` tells.
    """
    wait = _wait_seconds()
    job, replayed = received(ports, accept, lambda job_id: _made_before(ports, job_id), body, said)
    if not replayed:
        ports.ringer.ring(job.lane, job.id)
    return _answer(ports, job, wait, replayed)


def received(
    ports: Ports,
    accept: Callable[[Upload, Reservation | None, str], Made],
    again: Callable[[str], Made],
    body: bool = True,
    said: dict[str, str] | None = None,
) -> tuple[Made, bool]:
    """Receive the body, let `accept` make something of it, or `again` find what its key made before; and which of these it was."""
    if watch.stopping.is_set():  # on a connection that was there already
        raise Transient("shutting_down", retry_after_s=RESTART_SECONDS)
    check_space(ports)
    claim = _reserve(ports)
    fulfilled = False
    try:
        if not isinstance(claim, Replay):
            ports.quota.take(owner_id())
        with _receiving(ports, claim) if body else contextlib.nullcontext(Upload(said or {}, {})) as upload:
            fingerprint = upload.fingerprint(request.method, request.path)
            if isinstance(claim, Replay):
                _require_same(claim, fingerprint)
                made = again(claim.job_id)
            else:
                if "callback_url" in upload.fields:
                    raise Refused("callbacks_not_offered", fields={"callback_url": "not offered"})
                made = accept(upload, claim, fingerprint)
            fulfilled = True
    finally:
        if isinstance(claim, Reservation) and not fulfilled:
            ports.jobs.drop_reservation(claim)
    return made, isinstance(claim, Replay)


def once(
    ports: Ports, fields: dict[str, str], make: Callable[[Reservation | None, str], Made], again: Callable[[str], Made]
) -> tuple[Made, bool]:
    """What `make` makes, or what was made with this request's key before, by its id; and whether it was. For what is no job.

    `fields` are what the request says, for the fingerprint.
    """
    claim = _reserve(ports)
    fingerprint = Upload(fields, {}).fingerprint(request.method, request.path)
    if isinstance(claim, Replay):
        _require_same(claim, fingerprint)
        return again(claim.job_id), True
    fulfilled = False
    try:
        made = make(claim, fingerprint)
        fulfilled = True
    finally:
        if claim is not None and not fulfilled:
            ports.jobs.drop_reservation(claim)
    return made, False


def create_from_json(ports: Ports, body: BaseModel, accept: Callable[[Reservation | None, str], Job]) -> Response:
    """The same of a JSON body that was read already."""
    said = {"body": json.dumps(body.model_dump(mode="json", exclude_unset=True), sort_keys=True)}
    return create(ports, lambda _, reservation, fingerprint: accept(reservation, fingerprint), body=False, said=said)


def check_space(ports: Ports) -> None:
    """Whether there is room for an upload. Raises `Transient("storage_full")`."""
    if disk.nearly_full(ports.settings):
        raise Transient("storage_full", retry_after_s=60)


def _reserve(ports: Ports) -> Reservation | Replay | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not KEY.fullmatch(key):
        raise Refused(
            "invalid_field", "Idempotency-Key takes 1 to 255 visible ASCII characters.", fields={"Idempotency-Key": "not visible ASCII"}
        )
    return ports.jobs.reserve(owner_id(), key)


def _receiving(ports: Ports, claim: Reservation | Replay | None) -> AbstractContextManager[Upload]:
    return receiving(request, ports.blobs, ports.settings, lambda: _renew(ports, claim))


def _renew(ports: Ports, claim: Reservation | Replay | None) -> None:
    if isinstance(claim, Reservation):
        ports.jobs.renew_reservation(claim)


def _require_same(replay: Replay, fingerprint: str) -> None:
    if replay.fingerprint != fingerprint:
        raise Refused("idempotency_mismatch")


def _made_before(ports: Ports, job_id: str) -> Job:
    job = ports.jobs.get(job_id, owner_id())
    if job is None:
        raise Refused("job_not_found", "The job of this Idempotency-Key was deleted.")
    return job


def _wait_seconds() -> float | None:
    """The `wait` preference of RFC 7240, or None."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", ",".join(request.headers.getlist("Prefer")))
    return min(int(found[1]), LONGEST_WAIT) if found else None


def _answer(ports: Ports, job: Job, wait: float | None, replayed: bool = False) -> Response:
    if wait is not None:
        job = ports.watch.until_final(job, wait) or job  # deleted meanwhile: it was accepted all the same
    response = jobs_api.answer(ports, job, 200 if wait is not None and job.final else 202)
    response.headers["Location"] = jobs_api.links(job)["self"]
    if not job.final:
        response.headers["Retry-After"] = "1"
    if wait is not None:
        response.headers["Preference-Applied"] = f"wait={wait:g}"
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
