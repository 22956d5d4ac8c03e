"""The models there are, adding one's own, and deleting it."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from flask import Blueprint, Response, current_app, g, json
from uuid_utils import uuid7

from api import creating
from api.jobs import SANDBOXED
from api.owner import owner_id
from api.problems import parse
from api.routes import Routes
from api.schemas import JobView, ModelForm, ModelMetricsPage, ModelMetricsRowView, ModelPage, ModelView, NoQuery
from api.uploads import Part, Upload
from api.wiring import Ports
from shared.errors import Refused
from shared.jobs.job import Job, Kind, Lane, NewJob, blob_key
from shared.jobs.store import Reservation
from shared.models import manifest, weights
from shared.models.card import card
from shared.models.manifest import Manifest
from shared.models.store import WEIGHTS, Model

LARGEST_MANIFEST = 1_000_000  # bytes

routes = Routes(Blueprint("models", __name__))


@routes.add("GET", "/v1/models", {200: ModelPage}, query=NoQuery, problems=("unknown_field", "database_busy"))
def list_models() -> Response:
    """Every model version of yours and of Lacuna's, with its manifest: what it learnt from, and how good it is."""
    ports: Ports = current_app.extensions["lacuna"]()
    return _page(views(ports, ports.models.list(owner_id())))


@routes.add("GET", "/v1/models/<name>", {200: ModelPage}, query=NoQuery, problems=("model_not_found", "unknown_field", "database_busy"))
def get_model(name: str) -> Response:
    """The versions of one model."""
    ports: Ports = current_app.extensions["lacuna"]()
    return _page(views(ports, _versions(ports, name)))


@routes.add(
    "GET",
    "/v1/models/<name>/metrics",
    {200: ModelMetricsPage},
    query=NoQuery,
    problems=("model_not_found", "unknown_field", "database_busy"),
)
def get_metrics_of_model(name: str) -> Response:
    """What the versions of one model were measured at."""
    ports: Ports = current_app.extensions["lacuna"]()
    return _measured(ports, _versions(ports, name))


@routes.add(
    "GET", "/v1/models/<name>/versions/<version>", {200: ModelView}, query=NoQuery,
    problems=("model_not_found", "unknown_field", "database_busy"),
)  # fmt: skip
def get_version(name: str, version: str) -> Response:
    """One model version."""
    ports: Ports = current_app.extensions["lacuna"]()
    return answer(ports, find(ports, name, version))


@routes.add(
    "GET", "/v1/models/<name>/versions/<version>/metrics", {200: ModelMetricsPage}, query=NoQuery,
    problems=("model_not_found", "unknown_field", "database_busy"),
)  # fmt: skip
def get_metrics_of_version(name: str, version: str) -> Response:
    """What one model version was measured at.

    A row for each measurement, with the names of its protocol and of the pictures, and all that the protocol measures: those of the
    manifest, then those of your evaluations, each with its `job`.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    return _measured(ports, [find(ports, name, version)])


@routes.add(
    "GET", "/v1/models/<name>/versions/<version>/card", {200: "text/markdown"}, query=NoQuery,
    problems=("model_not_found", "unknown_field", "database_busy"),
)  # fmt: skip
def get_card(name: str, version: str) -> Response:
    """The model card of a version: what it is, how good, what it learnt from and on what terms."""
    ports: Ports = current_app.extensions["lacuna"]()
    found = find(ports, name, version)
    return Response(card(found.manifest), content_type="text/markdown; charset=utf-8", headers=SANDBOXED)


@routes.add(
    "DELETE", "/v1/models/<name>/versions/<version>", {204: ""}, query=NoQuery,
    problems=("model_not_found", "in_use", "unknown_field", "database_busy"),
)  # fmt: skip
def delete_version(name: str, version: str) -> Response:
    """Delete a model version of your own, and its files.

    Not while an alias, a default or a job that has not ended names it. Another model never gets the number of one that was
    ready: what jobs say of their model stays true.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    model = ports.models.delete(owner_id(), name, known_version(version))
    for key in ports.blobs.owned(model.id or ""):  # after the row, so that no row names what is gone; the sweeper takes what we leave
        ports.blobs.delete(key)
    return Response(status=204)


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
        return ports.jobs.accept(new, reservation, fingerprint, [ports.models.preparing(described, model_id, job_id, owner_id())])
    except Refused:  # for certain; after any other error the row may be there, and the sweeper decides
        ports.blobs.delete(key)
        raise


def _manifest(part: Part) -> Manifest:
    if part.draft.size > LARGEST_MANIFEST:
        raise Refused("artifact_invalid", f"A manifest has at most {LARGEST_MANIFEST // 1000} kB.", fields={"manifest": "too large"})
    with part.draft.reader() as file:
        return manifest.parse(file.read())


def find(ports: Ports, name: str, version: str) -> Model:
    """The version that the owner sees. Raises `Refused("model_not_found")`."""
    found = ports.models.seen(name, known_version(version), owner_id())
    if found is None:
        raise Refused("model_not_found")
    return found


def known_version(given: str) -> int:
    """A version in an address. Raises `Refused("model_not_found")` for what is none."""
    if not re.fullmatch("[0-9]{1,9}", given):
        raise Refused("model_not_found")
    return int(given)


def answer(ports: Ports, found: Model) -> Response:
    """A version as a response."""
    (view,) = views(ports, [found])
    return Response(json.dumps(view), content_type="application/json")


def views(ports: Ports, models: Iterable[Model]) -> list[dict[str, Any]]:
    """Versions as JSON, with what they are used as by this request's owner."""
    defaults, aliases = ports.models.defaults(owner_id()), ports.models.aliases(owner_id())
    return [
        ModelView(
            **found.manifest.model_dump(by_alias=True),
            state=found.state,
            job=found.job_id,
            default=defaults.get(found.manifest.task) == found.reference,
            aliases=aliases.get(found.reference, []),
        ).model_dump(mode="json")
        for found in models
    ]


def _versions(ports: Ports, name: str) -> list[Model]:
    found = ports.models.list(owner_id(), name)
    if not found:
        raise Refused("model_not_found")
    return found


def _measured(ports: Ports, models: Sequence[Model]) -> Response:
    known = {found.reference: found.manifest.rows for found in models}
    for row in ports.jobs.evaluated(owner_id(), known):
        known[row["model"]].append(row)
    rows = [ModelMetricsRowView.model_validate(row) for of in known.values() for row in of]
    return _page([row.model_dump(mode="json") for row in rows])


def _page(items: list[dict[str, Any]]) -> Response:
    return Response(json.dumps({"items": items, "next": None}), content_type="application/json")
