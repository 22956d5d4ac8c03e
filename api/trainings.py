"""`POST /v1/trainings`: a model of one's own, from a data set. All that can be said at once is said here; the job does the rest."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, current_app, g
from uuid_utils import uuid7

from api import creating
from api.owner import owner_id
from api.routes import Routes
from api.schemas import JobView, NoQuery, TrainingBody
from api.wiring import Ports
from shared.datasets.store import Dataset
from shared.errors import Refused
from shared.jobs.job import Job, Kind, Lane, NewJob
from shared.jobs.store import Reservation
from shared.models.manifest import DataUsed, Manifest
from shared.trainings.recipe import DEFAULTS, Parameters, Recipe

TRIES = 3  # to get a version, while others of the same name are accepted

routes = Routes(Blueprint("trainings", __name__))


@routes.add(
    "POST", "/v1/trainings", {200: JobView, 202: JobView}, query=NoQuery, headers=creating.HEADERS, body=TrainingBody,
    problems=(*creating.PROBLEMS_WITHOUT_BODY, "unknown_task", "unknown_model", "model_task", "model_exists", "unknown_dataset",
              "dataset_not_ready"),
)  # fmt: skip
def post_training() -> Response:
    """Train a model.

    It learns from a data set, from nothing or from a `base`, and is ready when the job has succeeded. `GET …/metrics` and
    `…/artifacts` of the job show how it gets on.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    body: TrainingBody = g.body
    return creating.create_from_json(ports, body, lambda reservation, fingerprint: _accept(ports, body, reservation, fingerprint))


def _accept(ports: Ports, body: TrainingBody, reservation: Reservation | None, fingerprint: str) -> Job:
    dataset = _dataset(ports, body)
    base = _base(ports, body)
    recipe = _recipe(body, dataset, base)
    for left in reversed(range(TRIES)):
        version = ports.models.next_version(body.name)
        model_id, job_id = str(uuid7()), str(uuid7())
        new = NewJob(
            id=job_id, owner_id=owner_id(), kind=Kind.TRAIN, lane=Lane.TRAIN, task=body.task, model_name=body.name, model_version=version,
            input={
                "name": dataset.label or dataset.id, "bytes": dataset.bytes, "sha256": dataset.sha256, "format": "DATASET",
                "dataset": dataset.id, "base": base and base.reference, "terms": body.terms, "licence": body.licence,
            },
            params=recipe.model_dump(mode="json"), pixels=1, max_attempts=ports.settings.max_attempts, request_id=g.request_id,
            label=body.label, progress_unit="steps",
        )  # fmt: skip
        described = _described(body, version, dataset, base, recipe)
        alongside = [ports.models.preparing(described, model_id, job_id, owner_id()), ports.datasets.held(dataset.id, owner_id())]
        if base is not None:
            alongside.append(ports.models.held(base.name, base.version, owner_id()))
        try:
            return ports.jobs.accept(new, reservation, fingerprint, alongside)
        except Refused as refused:
            if refused.code != "model_exists" or not left or ports.models.next_version(body.name) == version:
                raise
    raise AssertionError("the last try returns or raises")


def _dataset(ports: Ports, body: TrainingBody) -> Dataset:
    found = ports.datasets.usable(body.dataset, owner_id())
    if (room := (found.counts or {})["largest_patch"] // (2 if body.half_share else 1)) < body.patch:
        raise _wrong("patch", f"The largest of its pictures has room for {room} pixels; choose a smaller `patch`.")
    return found


def _base(ports: Ports, body: TrainingBody) -> Manifest | None:
    """The model that it starts from."""
    if body.base is None:
        return None
    try:
        chosen = ports.models.resolve(body.task, body.base, owner_id())
    except Refused as refused:
        raise Refused(refused.code, refused.detail, fields={"base": refused.kind.title}) from refused
    found = ports.models.get(chosen.name, chosen.version)
    if found is None:
        raise Refused("unknown_model", fields={"base": "deleted just now"})
    if not found.manifest.parameters:
        raise _wrong("base", f"{found.reference} is a classical method, which learns nothing.")
    if body.architecture not in (None, found.manifest.architecture):
        raise _wrong("architecture", f"{found.reference} is a {found.manifest.architecture}; leave `architecture` out, or the base.")
    return found.manifest


def _recipe(body: TrainingBody, dataset: Dataset, base: Manifest | None) -> Recipe:
    """What was asked, with what follows from the data set and the base."""
    if "supervision" in body.model_fields_set and body.supervision != dataset.kind:
        raise _wrong("supervision", f"The data set is {dataset.kind}; leave `supervision` out.")
    if body.task == "inpaint" and dataset.kind != "clean":
        raise _wrong("dataset", "Filling is learnt from clean pictures.")
    asked: dict[str, Any] = {name: getattr(body, name) for name in Parameters.model_fields}
    asked["supervision"] = dataset.kind
    asked["architecture"] = base.architecture if base is not None else body.architecture or DEFAULTS[body.task]
    return Recipe(**asked, config=base.config if base is not None else {})


def _described(body: TrainingBody, version: int, dataset: Dataset, base: Manifest | None, recipe: Recipe) -> Manifest:
    """What is known of the model before it has learnt anything."""
    return Manifest(
        schema=1, name=body.name, version=version, task=body.task, architecture=recipe.architecture or "", config=recipe.config,
        weights_sha256=None, parameters=0, created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        base=base and base.reference, recipe=recipe.model_dump(mode="json"),
        data=[DataUsed(name=dataset.label or dataset.id, sha256=dataset.sha256 or "", images=dataset.images, terms=body.terms)],
        metrics={}, licence=body.licence,
    )  # fmt: skip


def _wrong(field: str, what: str) -> Refused:
    return Refused("invalid_field", f"{field}: {what}", fields={field: what})
