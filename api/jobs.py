"""Jobs as users see them: one, its result, the list, cancel and delete."""

import base64
import binascii
import os
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

from flask import Blueprint, Response, current_app, g, json, request, send_file
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from api import problems
from api.owner import owner_id
from api.routes import Routes
from api.schemas import InputView, JobPage, JobQuery, JobsQuery, JobView, MetricsPage, MetricsRowView, NoQuery, timestamp
from api.wiring import Ports
from shared import events
from shared.errors import Refused
from shared.folders import inputs, names
from shared.jobs.job import DATASET, PARTS, Job, Kind, State

routes = Routes(Blueprint("jobs", __name__))

SANDBOXED = {  # a browser shows or keeps what users sent, and runs nothing of it
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TOLD = frozenset(InputView.model_fields) - frozenset(PARTS)
Found = TypeVar("Found")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# fields of a view that stand in the row as they are
_SHOWN = (
    "id", "kind", "state", "version", "task", "lane", "model", "label", "path", "attempts", "max_attempts", "result", "metrics",
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
    job, position = _there(ports.jobs.placed(known_id(job_id), owner_id()))
    if query.wait:
        job = _there(ports.watch.until_state_changes(job, query.wait))
        position = _position(ports, job)
    response = _answer(ports, job, position, 200)
    response.make_conditional(request)
    return response


@routes.add(
    "GET", "/v1/jobs/<job_id>/result", {200: "image/*", 206: "image/*", 304: ""},
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
    job = find(ports, job_id)
    if (refusal := withheld(job)) is not None:
        return refusal
    return _send(ports, job, job.result or {}, job.result_key or "")


@routes.add(
    "GET",
    "/v1/jobs/<job_id>/metrics",
    {200: MetricsPage},
    problems=("bad_id", "job_not_found", "unknown_field", "database_busy"),
)
def get_metrics(job_id: str) -> Response:
    """The figures of a job.

    Of a restoration how close output and input are to the reference: none without one, and until it has succeeded. Of a training
    each epoch's, as they come, and at the end how good the model is beside the untouched input and others.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    rows = [MetricsRowView(**row, split=row["of"] if row["epoch"] else None) for row in ports.jobs.metrics(find(ports, job_id).id)]
    return _json({"items": [row.model_dump(mode="json") for row in rows], "next": None})


@routes.add(
    "GET", "/v1/jobs", {200: JobPage}, query=JobsQuery, problems=("bad_cursor", "bad_id", "invalid_field", "unknown_field", "database_busy")
)
def list_jobs() -> Response:
    """Jobs, newest first."""
    ports: Ports = current_app.extensions["lacuna"]()
    query: JobsQuery = g.query
    filters: dict[str, str | int] = {
        name: value for name in ("state", "kind", "task", "lane", "label") if (value := getattr(query, name)) is not None
    }
    if query.model is not None:
        name, _, version = query.model.partition("@")
        filters |= {"model_name": name} | ({"model_version": int(version)} if version else {})
    if query.batch is not None:
        filters["batch_id"] = known_id(query.batch)
    found = ports.jobs.page(owner_id(), filters, query.limit + 1, read_cursor(query.cursor))
    shown = found[: query.limit]
    after = cursor(shown[-1].id) if len(found) > query.limit else None
    return _json({"items": views(ports, shown), "next": after})


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
    job = find(ports, job_id)
    canceled = ports.jobs.cancel(owner_id(), job.id)
    if canceled is None:
        raise Refused("already_final")
    return answer(ports, canceled, 200)


@routes.add("DELETE", "/v1/jobs/<job_id>", {204: ""}, problems=("bad_id", "job_not_found", "not_final", "unknown_field", "database_busy"))
def delete_job(job_id: str) -> Response:
    """Delete a job and its files.

    It must have ended.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    job = find(ports, job_id)
    if not job.final or not ports.jobs.delete(owner_id(), job.id):
        raise Refused("not_final")
    for key in ports.blobs.owned(job.id):  # after the row, so that no row names what is gone; the sweeper takes what we leave
        ports.blobs.delete(key)
    return Response(status=204)


def answer(ports: Ports, job: Job, status: int) -> Response:
    """A job as a response."""
    return _answer(ports, job, _position(ports, job), status)


def _answer(ports: Ports, job: Job, position: int | None, status: int) -> Response:
    """With its ETag (of the version: position and ETA are left out of it)."""
    response = Response(_view(ports, job, position).model_dump_json(), status, content_type="application/json")
    response.set_etag(f"{job.id}.{job.version}")
    return response


def views(ports: Ports, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Jobs as JSON; what is before each is looked up once for all."""
    lanes = {job.lane for job in jobs if job.state is State.QUEUED}
    unknown: dict[str, int] = {}
    positions = _positions(lambda: ports.jobs.positions(lanes), unknown) if lanes else unknown
    shown = [_view(ports, job, positions.get(job.id) if job.state is State.QUEUED else None) for job in jobs]
    return [view.model_dump(mode="json") for view in shown]


def _position(ports: Ports, job: Job) -> int | None:
    return _positions(lambda: ports.jobs.position(job), None)


def _view(ports: Ports, job: Job, position: int | None) -> JobView:
    shown = {name: getattr(job, name) for name in _SHOWN} | {
        "params": job.params | {name: job.input[name] for name in ("dataset", "base") if name in job.input},
        "task": job.task or None,
        "model": job.model or None,
        "batch": job.batch_id,
        "owner": job.owner_id,
        "input": _input(job),
        "progress": {"done": job.progress_done, "total": job.progress_total, "unit": job.progress_unit},
        "position": position,
        "eta_s": ports.estimates.seconds(job),
        "created_at": timestamp(job.created_at),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
        "expires_at": timestamp(_expires_at(ports, job)),
        "links": links(job),
    }
    return JobView.model_validate(shown)


def _input(job: Job) -> dict[str, Any]:
    """What was sent or is read, without the keys of blobs and the places of files."""
    parts = {name: job.input[name] for name in PARTS if name in job.input}
    told = {name: {key: value for key, value in part.items() if key in _TOLD} for name, part in parts.items()}
    return {name: value for name, value in job.input.items() if name in _TOLD} | told


def links(job: Job) -> dict[str, str]:
    """Where to go from a job: only what makes sense in its state."""
    there = f"{request.script_root}/v1/jobs/{job.id}"  # not by url_for, which takes a quarter of the time that a job takes to show
    found = {"self": there}
    if job.state is State.SUCCEEDED and job.kind == Kind.RESTORE and job.expires_at is None:
        found |= {"result": f"{there}/result"} | ({} if job.output is not None else {"preview": f"{there}/preview"})
    if job.metrics is not None or job.kind in (Kind.TRAIN, Kind.EVALUATE):
        found["metrics"] = f"{there}/metrics"
    if job.kind == Kind.TRAIN:
        found["artifacts"] = f"{there}/artifacts"
    if DATASET in job.input:
        found["dataset"] = f"{request.script_root}/v1/datasets/{job.input[DATASET]}"
    if not job.final:
        found |= {"events": f"{request.script_root}/v1/events?job={job.id}", "cancel": f"{there}/cancel"}
    else:
        if job.kind == Kind.RESTORE and job.expires_at is None:  # a model's weights go when it did not get ready
            found["retry"] = f"{there}/retry"
        found["delete"] = there
    return found


def withheld(job: Job) -> Response | None:
    """Why the files that a job makes cannot be had; None if they can. That of a failed job is its own error.

    Raises `Refused` canceled, no_result, result_expired or not_ready.
    """
    if job.error is not None:
        return problems.answer(job.error["code"], job.error["detail"], status=409)
    if job.state is State.CANCELED:
        raise Refused("canceled")
    if job.kind != Kind.RESTORE:
        raise Refused("no_result")
    if job.expires_at is not None:
        raise Refused("result_expired")
    if job.state is not State.SUCCEEDED:
        raise Refused("not_ready", retry_after_s=1)
    return None


def known_id(given: str) -> str:
    """The id as we write it. Raises `Refused("bad_id")`."""
    try:
        return str(uuid.UUID(given))
    except ValueError as error:
        raise Refused("bad_id") from error


def find(ports: Ports, job_id: str) -> Job:
    """The owner's job. Raises `Refused` bad_id or job_not_found."""
    return _there(ports.jobs.get(known_id(job_id), owner_id()))


def _there(found: Found | None) -> Found:
    """The job that is there. Raises `Refused("job_not_found")`."""
    if found is None:
        raise Refused("job_not_found")
    return found


def _send(ports: Ports, job: Job, result: dict[str, Any], key: str) -> Response:
    try:
        file = ports.blobs.open(key) if job.output is None else placed(ports, job)
    except (FileNotFoundError, Refused) as error:
        raise Refused("result_expired") from error
    response = send_file(
        file, mimetype=result["type"], as_attachment=True, download_name=_result_name(job, result), conditional=False, etag=False
    )
    response.content_length = result["bytes"]
    response.set_etag(result["sha256"])
    response.headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(result['sha256'])).decode()}:"
    response.headers.update(SANDBOXED)
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=result["bytes"])
    except HTTPException:
        file.close()
        raise
    return response


def placed(ports: Ports, job: Job) -> BinaryIO:
    """The output of a job in its user's folder. Raises `Refused` where it is not there any more, with `file_changed` where another is."""
    output, result = job.output or {}, job.result or {}
    place = names.place(output)
    known = ports.batches.known_outputs([place]).get(place)
    file = ports.outputs.open(job)
    found = os.fstat(file.fileno())
    as_it_was = known is not None and (known.sha256, known.size, known.mtime_ns) == (result["sha256"], found.st_size, found.st_mtime_ns)
    if not as_it_was and (found.st_size != result["bytes"] or inputs.sha256(file) != result["sha256"]):
        file.close()
        raise Refused("file_changed")
    file.seek(0)
    return file


def _result_name(job: Job, result: dict[str, Any]) -> str:
    """The upload's name; whole, with the new ending behind it, where the format changed."""
    name = CONTROLS.sub("_", str(job.input["name"])).replace("\\", "/").rsplit("/", 1)[-1].lstrip(".") or "picture"
    changed = result["type"] != f"image/{str(job.input['format']).lower()}"
    return f"{name}.{result['type'].removeprefix('image/').replace('jpeg', 'jpg').replace('tiff', 'tif')}" if changed else name


def _positions(look: Callable[[], Found], unknown: Found) -> Found:
    """What `look` finds, or `unknown` where the database does not answer: a job that was accepted must not look refused for it."""
    try:
        return look()
    except SQLAlchemyError as error:
        events.emit("watch.failed", reason=type(error).__name__)
        return unknown


def _expires_at(ports: Ports, job: Job) -> int | None:
    """When its files are no longer kept; None: never, or not before it has ended."""
    if job.expires_at is not None or job.finished_at is None or job.kind != Kind.RESTORE or job.output is not None:
        return job.expires_at
    if not ports.settings.keep_seconds:
        return job.expires_at
    return job.finished_at + round(ports.settings.keep_seconds * 1000)


def cursor(job_id: str) -> str:
    """What continues a list of ids behind this one."""
    return base64.urlsafe_b64encode(uuid.UUID(job_id).bytes).decode().rstrip("=")


def read_cursor(given: str | None) -> str | None:
    """The id that a cursor names. Raises `Refused("bad_cursor")`."""
    if given is None:
        return None
    try:
        job_id = str(uuid.UUID(bytes=base64.urlsafe_b64decode(given + "==")))
    except (ValueError, binascii.Error) as error:
        raise Refused("bad_cursor") from error
    if cursor(job_id) != given:  # base64 skips what it does not know
        raise Refused("bad_cursor")
    return job_id


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")
