"""`POST /v1/evaluations`: how good models are on a data set, beside the untouched pictures and a classical method."""

from typing import Any

from flask import Blueprint, Response, current_app, g
from uuid_utils import uuid7

from api import creating
from api.owner import owner_id
from api.routes import Routes
from api.schemas import EvaluationBody, JobView, NoQuery
from api.wiring import Ports
from shared.errors import Refused
from shared.jobs.job import Job, Kind, Lane, NewJob
from shared.jobs.store import Reservation
from shared.models.store import Chosen

routes = Routes(Blueprint("evaluations", __name__))


@routes.add(
    "POST", "/v1/evaluations", {200: JobView, 202: JobView}, query=NoQuery, headers=creating.HEADERS, body=EvaluationBody,
    problems=(*creating.PROBLEMS_WITHOUT_BODY, "unknown_task", "unknown_model", "model_task", "unknown_dataset", "dataset_not_ready"),
)  # fmt: skip
def post_evaluation() -> Response:
    """Measure models on a data set.

    PSNR, SSIM, MSE, RMSE and MAE, for each picture and as means, of each model, the untouched input and a classical method: the
    job's metrics.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    body: EvaluationBody = g.body
    return creating.create_from_json(ports, body, lambda reservation, fingerprint: _accept(ports, body, reservation, fingerprint))


def _accept(ports: Ports, body: EvaluationBody, reservation: Reservation | None, fingerprint: str) -> Job:
    dataset = ports.datasets.usable(body.dataset, owner_id())
    if dataset.kind == "noisy" or (body.task == "inpaint" and dataset.kind != "clean"):
        what = (
            "There is nothing to compare with in a set of noisy pictures."
            if dataset.kind == "noisy"
            else "Filling is measured on clean pictures."
        )
        raise Refused("invalid_field", f"dataset: {what}", fields={"dataset": what})
    chosen = list({found.reference: found for found in (_model(ports, body, wanted) for wanted in body.models)}.values())
    params: dict[str, Any] = {"models": [model.reference for model in chosen]}
    if body.task == "inpaint":
        params["masks"] = body.masks
    elif dataset.kind == "clean":
        params["sigmas"] = body.sigmas
    new = NewJob(
        id=str(uuid7()), owner_id=owner_id(), kind=Kind.EVALUATE, lane=Lane.TRAIN, task=body.task, model_name=chosen[0].name,
        model_version=chosen[0].version,
        input={
            "name": dataset.label or dataset.id, "bytes": dataset.bytes, "sha256": dataset.sha256, "format": "DATASET",
            "dataset": dataset.id, "models": params["models"],
        },
        params=params, pixels=1, max_attempts=ports.settings.max_attempts, request_id=g.request_id, label=body.label,
        progress_unit="pictures",
    )  # fmt: skip
    held = [ports.models.held(model.name, model.version, owner_id()) for model in chosen if model.id is not None]
    return ports.jobs.accept(new, reservation, fingerprint, [ports.datasets.held(dataset.id, owner_id()), *held])


def _model(ports: Ports, body: EvaluationBody, wanted: str) -> Chosen:
    try:
        return ports.models.resolve(body.task, wanted, owner_id())
    except Refused as refused:
        raise Refused(refused.code, refused.detail, fields={"models": refused.kind.title}) from refused
