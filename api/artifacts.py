"""What a training leaves on its way: pictures that it restored, and the checkpoint that it would go on from."""

from flask import Blueprint, Response, current_app, json, request, send_file

from api import jobs as jobs_api
from api.routes import Routes
from api.schemas import ArtifactPage, ArtifactView
from api.wiring import Ports
from shared.errors import Refused

routes = Routes(Blueprint("artifacts", __name__))


@routes.add(
    "GET", "/v1/jobs/<job_id>/artifacts", {200: ArtifactPage}, problems=("bad_id", "job_not_found", "unknown_field", "database_busy")
)
def list_artifacts(job_id: str) -> Response:
    """The files that a training left so far.

    Samples are pictures side by side: what was given, what came out, and what was true. The checkpoint holds weights and optimiser.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    job = jobs_api.find(ports, job_id)
    views = [
        ArtifactView(
            name=name, bytes=one["bytes"], sha256=one["sha256"], type=one["type"],
            link=f"{request.script_root}/v1/jobs/{job.id}/artifacts/{name}",
        )
        for name, one in sorted((job.artifacts or {}).items())
    ]  # fmt: skip
    return Response(json.dumps({"items": [view.model_dump(mode="json") for view in views], "next": None}), content_type="application/json")


@routes.add(
    "GET", "/v1/jobs/<job_id>/artifacts/<name>", {200: "application/octet-stream", 304: ""},
    headers={"If-None-Match": "the ETag you have"},
    problems=("bad_id", "job_not_found", "artifact_not_found", "unknown_field", "database_busy"),
)  # fmt: skip
def get_artifact(job_id: str, name: str) -> Response:
    """One of these files.

    A training that runs replaces its checkpoint under the same name.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    found = (jobs_api.find(ports, job_id).artifacts or {}).get(name)
    if found is None:
        raise Refused("artifact_not_found")
    try:
        file = ports.blobs.open(found["key"])
    except FileNotFoundError as error:  # replaced just now
        raise Refused("artifact_not_found") from error
    response = send_file(file, mimetype=found["type"], as_attachment=True, download_name=name, conditional=False, etag=False)
    response.content_length = found["bytes"]
    response.set_etag(found["sha256"])
    response.headers.update(jobs_api.SANDBOXED)
    response.make_conditional(request)
    return response
