"""`POST /v1/jobs/{id}/retry`: a new job like an old one, with a copy of its own of what was sent."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, current_app, g
from sqlalchemy import Connection
from uuid_utils import uuid7

from api import creating
from api import jobs as jobs_api
from api.owner import owner_id
from api.routes import Routes
from api.schemas import JobView, NoQuery
from api.wiring import Ports
from shared.blobs.store import copy
from shared.errors import Refused
from shared.folders import names
from shared.folders import order as orders
from shared.jobs.job import DATASET, Job, Kind, NewJob, again, blob_key, input_keys, rekeyed
from shared.jobs.store import Reservation

INSTEAD: dict[str, str] = {
    Kind.TRAIN: "Post the training again; with `base` it can start from a model that is there.",
    Kind.EVALUATE: "Post the evaluation again.",
}
GONE = "What was sent is no longer kept; send it again."

routes = Routes(Blueprint("retries", __name__))


@routes.add(
    "POST", "/v1/jobs/<job_id>/retry", {200: JobView, 202: JobView}, query=NoQuery, headers=creating.HEADERS,
    problems=(*creating.PROBLEMS_WITHOUT_BODY, "bad_id", "job_not_found", "not_final", "model_exists", "unknown_model", "result_expired",
              "batch_not_open", "path_taken", "output_busy", "not_retried"),
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
    _require_repeatable(old)
    new_id = str(uuid7())
    publishes = old.kind == Kind.PUBLISH
    owner = str(uuid7()) if publishes else new_id  # of the blobs: weights belong to the model that they become
    settings = ports.settings
    if old.output is None:
        new = again(old, new_id, rekeyed(old.input, owner), settings.max_attempts, g.request_id)
    else:
        new = orders.again(ports.outputs.roots, old, new_id, settings.max_pixels, settings.max_attempts, g.request_id)
        if _is_in_its_place(ports, old, old.output):
            new = replace(new, output={**(new.output or {}), "overwrite": True})
    held = ports.models.held(old.model_name, old.model_version, owner_id())
    alongside = [_preparing(ports, old, owner, new_id) if publishes else held]
    if old.batch_id is not None:
        alongside.append(ports.batches.rejoining(owner_id(), old.batch_id))
    try:
        for key in input_keys(old.input):
            copy(ports.blobs, key, blob_key(owner, key.rsplit("/", 1)[1]))
        ports.blobs.sync(input_keys(new.input))
        return ports.jobs.accept(new, reservation, fingerprint, alongside)
    except FileNotFoundError as error:
        _forget(ports, new)
        raise Refused("result_expired", GONE) from error
    except Refused:  # for certain; after any other error the row may be there, and the sweeper decides
        _forget(ports, new)
        raise


def _require_repeatable(old: Job) -> None:
    """Raises `Refused` for what has not ended, is not kept, or is begun anew in another way."""
    if not old.final:
        raise Refused("not_final")
    if old.expires_at is not None:
        raise Refused("result_expired", GONE)
    if old.kind == Kind.INGEST and DATASET in old.input:
        raise Refused("not_retried", "Send the folder or archive again: it becomes a new data set.")
    if old.kind in INSTEAD:
        raise Refused("not_retried", INSTEAD[old.kind])
    if old.kind == Kind.INGEST:
        raise Refused("batch_state", "Start the folder or archive again as a new batch; what is done is not done again.")


def _is_in_its_place(ports: Ports, old: Job, output: dict[str, Any]) -> bool:
    """Whether what lies there is what that job made, as it was left: doing it again may replace it."""
    place = names.place(output)
    known = ports.batches.known_outputs([place]).get(place)
    if known is None or old.result is None or known.sha256 != old.result["sha256"]:
        return False
    with ports.outputs.roots.target(output["folder"]) as target:
        found = target.stat(output["path"])
    return found is not None and (found.st_size, found.st_mtime_ns) == (known.size, known.mtime_ns)


def _forget(ports: Ports, new: NewJob) -> None:
    for key in input_keys(new.input):
        ports.blobs.delete(key)


def _preparing(ports: Ports, old: Job, model_id: str, job_id: str) -> Callable[[Connection], None]:
    """What makes the model of a publish job wait for the new one."""
    model = ports.models.get(old.model_name, old.model_version)
    if model is None:
        raise Refused("unknown_model", f"{old.model} was deleted. Add it again, under another version if it was ready once.")
    if model.job_id != old.id:
        raise Refused("model_exists", f"{old.model} was sent again after this job.")
    return ports.models.preparing(model.manifest, model_id, job_id, owner_id())
