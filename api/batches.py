"""Batches: many pictures under one name. They are sent one by one, with `batch` and `path`, and counted, listed and stopped together."""

import base64
import binascii
import csv
import io
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, current_app, g, json, request
from uuid_utils import uuid7

from api import creating
from api import jobs as jobs_api
from api.owner import owner_id
from api.routes import Routes
from api.schemas import BatchBody, BatchesQuery, BatchPage, BatchView, ItemPage, ItemsQuery, ItemView, ManifestQuery, NoQuery, timestamp
from api.wiring import Ports
from shared.batches.batch import SHOWN, Batch, BatchState, Counts
from shared.errors import Refused
from shared.jobs.job import Job

routes = Routes(Blueprint("batches", __name__))

PAGE = 500  # rows of a manifest that are read at a time
MANIFEST = ("path", "state", "job", "model", "params", "bytes_in", "sha256_in", "bytes_out", "sha256_out", "type", "executor", "precision",
            "seconds", "attempts", "notes", "error", "detail", "psnr", "ssim", "finished_at")  # fmt: skip
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # with which a cell begins that a spreadsheet would run
KNOWN = ("bad_id", "batch_not_found", "unknown_field", "database_busy")
STATES = {shown: state for state, shown in SHOWN.items()}


@routes.add(
    "POST", "/v1/batches", {201: BatchView}, query=NoQuery, body=BatchBody,
    headers={"Idempotency-Key": "yours, up to 255 visible ASCII characters: the same key and request give the same batch"},
    problems=("unknown_field", "database_busy", "idempotency_in_progress", "idempotency_mismatch"),
)  # fmt: skip
def create_batch() -> Response:
    """Open a batch.

    Pictures are sent into it with `POST /v1/restorations`, each with `batch` and a `path`. It works on them at once; seal it
    when all are there, or it is sealed a day after the last.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    body: BatchBody = g.body
    batch, replayed = creating.once(
        ports,
        {} if body.label is None else {"label": body.label},
        lambda reservation, fingerprint: ports.batches.create(str(uuid7()), owner_id(), body.label, reservation, fingerprint),
        lambda batch_id: find(ports, batch_id),
    )
    response = _answer(ports, batch, 201)
    response.headers["Location"] = _links(batch)["self"]
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


@routes.add(
    "GET", "/v1/batches", {200: BatchPage}, query=BatchesQuery, problems=("bad_cursor", "invalid_field", "unknown_field", "database_busy")
)
def list_batches() -> Response:
    """Batches, newest first."""
    ports: Ports = current_app.extensions["lacuna"]()
    query: BatchesQuery = g.query
    found = ports.batches.page(owner_id(), query.limit + 1, jobs_api.read_cursor(query.cursor))
    shown = found[: query.limit]
    counts = ports.batches.counts([batch.id for batch in shown])
    after = jobs_api.cursor(shown[-1].id) if len(found) > query.limit else None
    return _json({"items": [_view(batch, counts[batch.id]).model_dump(mode="json") for batch in shown], "next": after})


@routes.add("GET", "/v1/batches/<batch_id>", {200: BatchView}, problems=KNOWN)
def get_batch(batch_id: str) -> Response:
    """One batch."""
    ports: Ports = current_app.extensions["lacuna"]()
    return _answer(ports, find(ports, batch_id), 200)


@routes.add("GET", "/v1/batches/<batch_id>/items", {200: ItemPage}, query=ItemsQuery, problems=(*KNOWN, "invalid_field", "bad_cursor"))
def list_items(batch_id: str) -> Response:
    """Its pictures, in the order of their paths."""
    ports: Ports = current_app.extensions["lacuna"]()
    query: ItemsQuery = g.query
    state = None if query.state is None else STATES[query.state]
    found = ports.jobs.in_batch(find(ports, batch_id).id, state, query.limit + 1, _read_cursor(query.cursor))
    shown = found[: query.limit]
    after = _cursor(shown[-1]) if len(found) > query.limit else None
    return _json({"items": [_item(job).model_dump(mode="json") for job in shown], "next": after})


@routes.add("POST", "/v1/batches/<batch_id>/seal", {200: BatchView}, query=NoQuery, problems=(*KNOWN, "batch_state"))
def seal_batch(batch_id: str) -> Response:
    """Say that all pictures are there.

    The batch ends with the last of them.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    return _moved(ports, batch_id, ports.batches.seal(owner_id(), jobs_api.known_id(batch_id)))


@routes.add("POST", "/v1/batches/<batch_id>/pause", {200: BatchView}, query=NoQuery, problems=(*KNOWN, "batch_state"))
def pause_batch(batch_id: str) -> Response:
    """Pause a batch.

    What is in work ends, nothing else begins.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    return _moved(ports, batch_id, ports.batches.pause(owner_id(), jobs_api.known_id(batch_id)))


@routes.add("POST", "/v1/batches/<batch_id>/resume", {200: BatchView}, query=NoQuery, problems=(*KNOWN, "batch_state"))
def resume_batch(batch_id: str) -> Response:
    """Go on with a paused batch."""
    ports: Ports = current_app.extensions["lacuna"]()
    return _moved(ports, batch_id, ports.batches.resume(owner_id(), jobs_api.known_id(batch_id)))


@routes.add("POST", "/v1/batches/<batch_id>/cancel", {200: BatchView}, query=NoQuery, problems=(*KNOWN, "already_final"))
def cancel_batch(batch_id: str) -> Response:
    """Cancel a batch and all of its pictures that have not ended.

    What has ended stays.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    canceled = ports.batches.cancel(owner_id(), jobs_api.known_id(batch_id))
    if canceled is None:
        find(ports, batch_id)
        raise Refused("already_final")
    return _answer(ports, canceled, 200)


@routes.add(
    "GET", "/v1/batches/<batch_id>/manifest", {200: "application/x-ndjson"}, query=ManifestQuery, problems=(*KNOWN, "invalid_field")
)
def get_manifest(batch_id: str) -> Response:
    """What became of each picture, a line each.

    JSON lines, or CSV with `format=csv`: paths, hashes of what came in and went out, model, parameters, errors, figures.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    query: ManifestQuery = g.query
    batch = find(ports, batch_id)
    rows = (_row(job) for job in _items(ports, batch.id))
    lines, media = (_csv(rows), "text/csv; charset=utf-8") if query.format == "csv" else (_jsonl(rows), "application/x-ndjson")
    response = Response(lines, content_type=media)
    response.headers["Content-Disposition"] = f'attachment; filename="lacuna-{batch.id}.{query.format}"'
    return response


def find(ports: Ports, batch_id: str) -> Batch:
    """The owner's batch. Raises `Refused` bad_id or batch_not_found."""
    found = ports.batches.get(owner_id(), jobs_api.known_id(batch_id))
    if found is None:
        raise Refused("batch_not_found")
    return found


def _moved(ports: Ports, batch_id: str, moved: Batch | None) -> Response:
    if moved is None:
        raise Refused("batch_state", f"The batch is {find(ports, batch_id).state}.")
    return _answer(ports, find(ports, batch_id), 200)  # again: it may have ended with that


def _answer(ports: Ports, batch: Batch, status: int) -> Response:
    view = _view(batch, ports.batches.counts([batch.id])[batch.id])
    return Response(view.model_dump_json(), status, content_type="application/json")


def _view(batch: Batch, counts: Counts) -> BatchView:
    return BatchView(
        id=batch.id, state=batch.state, reason=batch.reason, label=batch.label, counts={**vars(counts), "total": counts.total},
        created_at=timestamp(batch.created_at), finished_at=timestamp(batch.finished_at), links=_links(batch),
    )  # fmt: skip


def _links(batch: Batch) -> dict[str, str]:
    there = f"{request.script_root}/v1/batches/{batch.id}"
    moves = {
        BatchState.OPEN: ("seal", "cancel"), BatchState.RUNNING: ("pause", "cancel"), BatchState.PAUSED: ("resume", "cancel"),
    }.get(batch.state, ())  # fmt: skip
    found = {"self": there, "items": f"{there}/items", "manifest": f"{there}/manifest"} | {move: f"{there}/{move}" for move in moves}
    return found | ({"events": f"{request.script_root}/v1/events?batch={batch.id}"} if moves else {})


def _item(job: Job) -> ItemView:
    return ItemView(path=job.path or "", state=SHOWN[job.state], job=job.id, notes=job.notes, error=job.error, links=jobs_api.links(job))


def _cursor(job: Job) -> str:
    return base64.urlsafe_b64encode((job.path or "").encode()).decode()


def _read_cursor(cursor: str | None) -> str:
    """The path that it names."""
    try:
        return base64.b64decode((cursor or "").encode(), b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise Refused("bad_cursor") from error


def _items(ports: Ports, batch_id: str) -> Iterator[Job]:
    after = ""
    while page := ports.jobs.in_batch(batch_id, None, PAGE, after):
        yield from page
        after = page[-1].path or ""


def _row(job: Job) -> dict[str, Any]:
    result, error, figures = job.result or {}, job.error or {}, (job.metrics or {}).get("output", {})
    return dict(zip(MANIFEST, (
        job.path, SHOWN[job.state], job.id, job.model, job.params, job.input["bytes"], job.input["sha256"], result.get("bytes"),
        result.get("sha256"), result.get("type"), result.get("executor"), result.get("precision"), result.get("seconds"), job.attempts,
        job.notes, error.get("code"), error.get("detail"), figures.get("psnr"), figures.get("ssim"), timestamp(job.finished_at),
    ), strict=True))  # fmt: skip


def _jsonl(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row) + "\n"


def _csv(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerow(MANIFEST)
    for row in rows:
        writer.writerow(map(_cell, row.values()))
        yield lines.getvalue()
        lines.seek(0)
        lines.truncate()
    yield lines.getvalue()


def _cell(value: Any) -> Any:
    """As a spreadsheet shows it and does not run it."""
    if isinstance(value, dict | list):
        value = json.dumps(value) if value else ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value


def _json(body: Any) -> Response:
    return Response(json.dumps(body), content_type="application/json")
