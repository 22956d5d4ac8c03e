"""Jobs as users see them: one, its result, the list, and cancel."""

import base64
import binascii
import re
import uuid
from typing import Any

from flask import Blueprint, Response, current_app, g, json, request, send_file, url_for
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from api import problems
from api.owner import owner_id
from api.routes import Routes
from api.schemas import JobPage, JobQuery, JobsQuery, JobView, NoQuery, timestamp
from api.wiring import Ports
from shared import events
from shared.errors import Refused
from shared.jobs.job import Job, Kind, State

routes = Routes(Blueprint("jobs", __name__))

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# fields of a view that stand in the row as they are
_SHOWN = (
    "id", "kind", "state", "version", "task", "lane", "model", "label", "path", "params", "attempts", "max_attempts", "result", "metrics",
    "notes", "error", "retry_of",
)  # fmt: skip


@routes.add(
    "GET", "/v1/jobs/<job_id>", {200: JobView, 304: ""}, query=JobQuery, headers={"If-None-Match": "the ETag you have"},
    problems=("bad_id", "job_not_found", "invalid_field", "unknown_field", "database_busy"),
)  # fmt: skip
def get_job(job_id: str) -> Response:
    """One job.

    With `?wait=S` the answer comes when its state changes, or after S seconds.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    query: JobQuery = g.query
    job = _find(ports, job_id)
    if query.wait:
        job = ports.watch.until_state_changes(job, query.wait)
    response = answer(ports, job, 200)
    response.make_conditional(request)
    return response


@routes.add(
    "GET", "/v1/jobs/<job_id>/result", {200: "application/octet-stream", 206: "application/octet-stream", 304: ""},
    headers={"Range": "a part of the file", "If-None-Match": "the ETag you have"},
    problems=(
        "bad_id", "job_not_found", "not_ready", "no_result", "result_expired", "canceled", "range_not_satisfiable", "unknown_field",
        "database_busy",
    ),
)  # fmt: skip
def get_result(job_id: str) -> Response:
    """The restored file.

    A job that failed answers 409 with its own error.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    job = _find(ports, job_id)
    if job.error is not None:
        return problems.answer(job.error["code"], job.error["detail"], status=409)
    if job.state is State.CANCELED:
        raise Refused("canceled")
    if job.kind != Kind.RESTORE:
        raise Refused("no_result")
    if job.result is None or job.result_key is None:
        raise Refused("not_ready", retry_after_s=1)
    return _send(ports, job, job.result, job.result_key)


@routes.add("GET", "/v1/jobs", {200: JobPage}, query=JobsQuery, problems=("bad_cursor", "invalid_field", "unknown_field", "database_busy"))
def list_jobs() -> Response:
    """Jobs, newest first."""
    ports: Ports = current_app.extensions["lacuna"]()
    query: JobsQuery = g.query
    filters: dict[str, str | int] = {
        name: value for name in ("state", "kind", "task", "lane", "label") if (value := getattr(query, name)) is not None
    }
    if query.model is not None:
        name, _, version = query.model.partition("@")
        filters |= {"model_name": name, "model_version": int(version)}
    found = ports.jobs.page(owner_id(), filters, query.limit + 1, _read_cursor(query.cursor))
    shown = found[: query.limit]
    after = _cursor(shown[-1].id) if len(found) > query.limit else None
    return _json({"items": [view(ports, job) for job in shown], "next": after})


@routes.add(
    "POST",
    "/v1/jobs/<job_id>/cancel",
    {200: JobView},
    query=NoQuery,
    problems=("bad_id", "job_not_found", "already_final", "unknown_field", "database_busy"),
)
def cancel_job(job_id: str) -> Response:
    """Cancel a job.

    It is final at once and never gets a result, even if an attempt is under way.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    job = _find(ports, job_id)
    canceled = ports.jobs.cancel(owner_id(), job.id)
    if canceled is None:
        raise Refused("already_final")
    return answer(ports, canceled, 200)


def answer(ports: Ports, job: Job, status: int) -> Response:
    """A job as a response, with its ETag (of the version: position and ETA are left out of it)."""
    response = _json(view(ports, job), status)
    response.set_etag(f"{job.id}.{job.version}")
    return response


def view(ports: Ports, job: Job) -> dict[str, Any]:
    """A job as JSON."""
    shown = {name: getattr(job, name) for name in _SHOWN} | {
        "batch": job.batch_id,
        "owner": job.owner_id,
        "input": {name: value for name, value in job.input.items() if name != "key"},
        "progress": {"done": job.progress_done, "total": job.progress_total, "unit": job.progress_unit},
        "position": _position(ports, job),
        "eta_s": _eta_seconds(job),
        "created_at": timestamp(job.created_at),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
        "expires_at": timestamp(job.expires_at),
        "links": links(job),
    }
    return JobView.model_validate(shown).model_dump(mode="json")


def links(job: Job) -> dict[str, str]:
    """Where to go from a job: only what makes sense in its state."""
    found = {"self": url_for("jobs.get_job", job_id=job.id)}
    if job.state is State.SUCCEEDED and job.kind == Kind.RESTORE:
        found["result"] = url_for("jobs.get_result", job_id=job.id)
    if not job.final:
        found["cancel"] = url_for("jobs.cancel_job", job_id=job.id)
    return found


def _find(ports: Ports, job_id: str) -> Job:
    try:
        known = str(uuid.UUID(job_id))
    except ValueError as error:
        raise Refused("bad_id") from error
    job = ports.jobs.get(known, owner_id())
    if job is None:
        raise Refused("job_not_found")
    return job


def _send(ports: Ports, job: Job, result: dict[str, Any], key: str) -> Response:
    try:
        file = ports.blobs.open(key)
    except FileNotFoundError as error:
        raise Refused("result_expired") from error
    response = send_file(
        file, mimetype=result["type"], as_attachment=True, download_name=_result_name(job, result), conditional=False, etag=False
    )
    response.content_length = result["bytes"]
    response.set_etag(result["sha256"])
    response.headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(result['sha256'])).decode()}:"
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=result["bytes"])
    except HTTPException:
        file.close()
        raise
    return response


def _result_name(job: Job, result: dict[str, Any]) -> str:
    """The upload's name; whole, with the new ending behind it, where the format changed."""
    name = CONTROLS.sub("_", str(job.input["name"])).replace("\\", "/").rsplit("/", 1)[-1].lstrip(".") or "picture"
    changed = result["type"] != f"image/{str(job.input['format']).lower()}"
    return f"{name}.{result['type'].removeprefix('image/').replace('jpeg', 'jpg')}" if changed else name


def _position(ports: Ports, job: Job) -> int | None:
    """None also where the database does not answer: a job that was accepted must not look refused for it."""
    try:
        return ports.jobs.position(job)
    except SQLAlchemyError as error:
        events.emit("watch.failed", reason=type(error).__name__)
        return None


def _eta_seconds(job: Job) -> float | None:
    """From the first attempt's own pace, once a tile is done; later attempts have no start of their own in the row."""
    if job.state is not State.RUNNING or job.attempts > 1 or not job.progress_done or job.started_at is None:
        return None
    took = (job.changed_at - job.started_at) / 1000
    return round(took / job.progress_done * (job.progress_total - job.progress_done), 1)


def _cursor(job_id: str) -> str:
    return base64.urlsafe_b64encode(uuid.UUID(job_id).bytes).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        job_id = str(uuid.UUID(bytes=base64.urlsafe_b64decode(cursor + "==")))
    except (ValueError, binascii.Error) as error:
        raise Refused("bad_cursor") from error
    if _cursor(job_id) != cursor:  # base64 skips what it does not know
        raise Refused("bad_cursor")
    return job_id


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")
