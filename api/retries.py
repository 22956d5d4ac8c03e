"""`POST /v1/jobs/{id}/retry`: a new job like an old one, with a copy of its own of what was sent."""

from collections.abc import Callable

from flask import Blueprint, Response, current_app, g
from sqlalchemy import Connection
from uuid_utils import uuid7

from api import creating
from api import jobs as jobs_api
from api.owner import owner_id
from api.routes import Routes
from api.schemas import JobView, NoQuery
from api.wiring import Ports
from shared.errors import Refused
from shared.jobs.job import Job, Kind, Lane, NewJob, blob_key, input_keys, rekeyed
from shared.jobs.store import Reservation

CHUNK_BYTES = 1 << 20
GONE = "What was sent is no longer kept; send it again."

routes = Routes(Blueprint("retries", __name__))


@routes.add(
    "POST", "/v1/jobs/<job_id>/retry", {200: JobView, 202: JobView}, query=NoQuery, headers=creating.HEADERS,
    problems=(*creating.PROBLEMS_WITHOUT_BODY, "bad_id", "job_not_found", "not_final", "model_exists", "unknown_model", "result_expired",
              "batch_not_open", "path_taken"),
)  # fmt: skip
def retry_job(job_id: str) -> Response:
    """Do a job again.

    A new job with the same picture, model version and fields; `retry_of` names the old one, which must have ended. The model
    must still be there.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    jobs_api.known_id(job_id)
    return creating.create(ports, lambda _, reservation, fingerprint: _accept(ports, job_id, reservation, fingerprint), body=False)


def _accept(ports: Ports, job_id: str, reservation: Reservation | None, fingerprint: str) -> Job:
    old = jobs_api.find(ports, job_id)
    if not old.final:
        raise Refused("not_final")
    if old.expires_at is not None:
        raise Refused("result_expired", GONE)
    new_id = str(uuid7())
    publishes = old.kind == Kind.PUBLISH
    owner = str(uuid7()) if publishes else new_id  # of the blobs: weights belong to the model that they become
    new = NewJob(
        id=new_id,
        owner_id=owner_id(),
        kind=Kind(old.kind),
        lane=Lane(old.lane),
        task=old.task,
        model_name=old.model_name,
        model_version=old.model_version,
        input=rekeyed(old.input, owner),
        params=old.params,
        pixels=old.pixels,
        max_attempts=ports.settings.max_attempts,
        request_id=g.request_id,
        label=old.label,
        retry_of=old.id,
        batch_id=old.batch_id,
        path=old.path,
    )
    held = ports.models.held(old.model_name, old.model_version, owner_id())
    alongside = [_preparing(ports, old, owner, new_id) if publishes else held]
    if old.batch_id is not None:
        alongside.append(ports.batches.rejoining(owner_id(), old.batch_id))
    try:
        for key in input_keys(old.input):
            _copy(ports, key, blob_key(owner, key.rsplit("/", 1)[1]))
        ports.blobs.sync(input_keys(new.input))
        return ports.jobs.accept(new, reservation, fingerprint, alongside)
    except Refused:  # for certain; after any other error the row may be there, and the sweeper decides
        for key in input_keys(new.input):
            ports.blobs.delete(key)
        raise


def _preparing(ports: Ports, old: Job, model_id: str, job_id: str) -> Callable[[Connection], None]:
    """What makes the model of a publish job wait for the new one."""
    model = ports.models.get(old.model_name, old.model_version)
    if model is None:
        raise Refused("unknown_model", f"{old.model} was deleted. Add it again, under another version if it was ready once.")
    if model.job_id != old.id:
        raise Refused("model_exists", f"{old.model} was sent again after this job.")
    return ports.models.preparing(model.manifest, model_id, job_id, owner_id())


def _copy(ports: Ports, key: str, copy: str) -> None:
    draft = ports.blobs.draft()
    try:
        with ports.blobs.open(key) as file:
            while data := file.read(CHUNK_BYTES):
                draft.write(data)
        draft.place(copy)
    except FileNotFoundError as error:
        raise Refused("result_expired", GONE) from error
    finally:
        draft.discard()
