"""The models there are, and adding one's own."""

from typing import Any

from flask import Blueprint, Response, current_app, g, json
from uuid_utils import uuid7

from api import creating
from api.owner import owner_id
from api.problems import parse
from api.routes import Routes
from api.schemas import JobView, ModelForm, ModelPage, ModelView, NoQuery
from api.uploads import Part, Upload
from api.wiring import Ports
from shared.errors import Refused
from shared.jobs.job import Job, Kind, Lane, NewJob, blob_key
from shared.jobs.store import Reservation
from shared.models import manifest, weights
from shared.models.manifest import Manifest
from shared.models.store import WEIGHTS

LARGEST_MANIFEST = 1_000_000  # bytes

routes = Routes(Blueprint("models", __name__))


@routes.add("GET", "/v1/models", {200: ModelPage}, query=NoQuery, problems=("unknown_field", "database_busy"))
def list_models() -> Response:
    """Every model version of yours and of Lacuna's, with its manifest: what it learnt from, and how good it is."""
    return Response(json.dumps({"items": _views(), "next": None}), content_type="application/json")


@routes.add("GET", "/v1/models/<name>", {200: ModelPage}, query=NoQuery, problems=("model_not_found", "unknown_field", "database_busy"))
def get_model(name: str) -> Response:
    """The versions of one model."""
    versions = [found for found in _views() if found["name"] == name]
    if not versions:
        raise Refused("model_not_found")
    return Response(json.dumps({"items": versions, "next": None}), content_type="application/json")


@routes.add(
    "POST", "/v1/models", {200: JobView, 202: JobView}, form=ModelForm, files=("manifest", "weights"), headers=creating.HEADERS,
    problems=(*creating.PROBLEMS, "artifact_invalid", "model_exists"),
)  # fmt: skip
def add_model() -> Response:
    """Add a model of your own.

    The two files of a training: `manifest` (JSON), which names it, and `weights` (safetensors). The answer is the job that
    rebuilds the network, exports it and compares; once that has succeeded the model is ready.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    return creating.create(ports, lambda upload, reservation, fingerprint: _accept(ports, upload, reservation, fingerprint))


def _accept(ports: Ports, upload: Upload, reservation: Reservation | None, fingerprint: str) -> Job:
    parse(ModelForm, upload.fields | {name: part for name, part in upload.parts.items() if name not in ("manifest", "weights")})
    for name in ("manifest", "weights"):
        if name not in upload.parts:
            raise Refused("invalid_field", f"The form has no file part named “{name}”.", fields={name: "missing"})
    described = _manifest(upload.parts["manifest"])
    draft = upload.parts["weights"].draft
    with draft.reader() as file:
        weights.check(file, draft.size, described.parameters)
    if draft.sha256() != described.weights_sha256:
        raise Refused("artifact_invalid", "These are not the weights that the manifest names.", fields={"weights": "another hash"})
    model_id, job_id = str(uuid7()), str(uuid7())
    key = blob_key(model_id, WEIGHTS)
    new = NewJob(
        id=job_id,
        owner_id=owner_id(),
        kind=Kind.PUBLISH,
        lane=Lane.TRAIN,
        task=described.task,
        model_name=described.name,
        model_version=described.version,
        input={"name": described.reference, "bytes": draft.size, "sha256": draft.sha256(), "format": "SAFETENSORS", "key": key},
        params={},
        pixels=1,
        max_attempts=ports.settings.max_attempts,
        request_id=g.request_id,
    )
    draft.place(key)
    ports.blobs.sync([key])
    try:
        return ports.jobs.accept(new, reservation, fingerprint, ports.models.preparing(described, model_id, job_id, owner_id()))
    except Refused:  # for certain; after any other error the row may be there, and the sweeper decides
        ports.blobs.delete(key)
        raise


def _manifest(part: Part) -> Manifest:
    if part.draft.size > LARGEST_MANIFEST:
        raise Refused("artifact_invalid", f"A manifest has at most {LARGEST_MANIFEST // 1000} kB.", fields={"manifest": "too large"})
    with part.draft.reader() as file:
        return manifest.parse(file.read())


def _views() -> list[dict[str, Any]]:
    ports: Ports = current_app.extensions["lacuna"]()
    chosen = ports.models.defaults()
    return [
        ModelView(
            **found.manifest.model_dump(by_alias=True),
            state=found.state,
            job=found.job_id,
            default=chosen.get(found.manifest.task) == found.manifest.reference,
            aliases=ports.models.aliases(found.manifest),
        ).model_dump(mode="json")
        for found in ports.models.list(owner_id())
    ]
