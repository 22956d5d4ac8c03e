"""Batches: many pictures under one name, counted, listed and stopped together.

They are sent one by one, with `batch` and `path`, or found by a job: in a folder of the server's machine, or in an archive that was sent.
"""

import base64
import binascii
from pathlib import PurePosixPath
from typing import Any

from flask import Blueprint, Response, current_app, g, json, request
from uuid_utils import uuid7

from api import archives, creating, manifest, results
from api import jobs as jobs_api
from api.owner import owner_id
from api.restorations import check_asked, params
from api.routes import Routes
from api.schemas import (
    ArchiveForm,
    BatchBody,
    BatchesQuery,
    BatchPage,
    BatchView,
    ItemPage,
    ItemsQuery,
    ItemView,
    JobView,
    ManifestQuery,
    NoQuery,
    timestamp,
)
from api.uploads import Upload
from api.wiring import Ports
from shared import disk
from shared.batches.batch import FULL, GOING, Batch, BatchState, Counts, Item
from shared.errors import Refused
from shared.folders.order import FolderOrder
from shared.jobs.job import Job, Kind, Lane, NewJob
from shared.jobs.store import Reservation

routes = Routes(Blueprint("batches", __name__))

KNOWN = ("bad_id", "batch_not_found", "unknown_field", "database_busy")


@routes.add(
    "POST", "/v1/batches", {201: BatchView, 202: JobView}, query=NoQuery, body=BatchBody, form=ArchiveForm, files=("archive",),
    headers={"Idempotency-Key": "yours, up to 255 visible ASCII characters: the same key and request give the same batch"},
    problems=(
        *creating.PROBLEMS, "unknown_task", "unknown_model", "model_task", "archive_corrupt", "archive_empty", "path_not_allowed",
        "folder_not_found", "folder_unreadable", "folders_overlap", "output_not_writable", "link_refused", "output_busy",
    ),
)  # fmt: skip
def create_batch() -> Response:
    """Open a batch, or restore a folder or an archive.

    Without a `folder` it is open: pictures are sent into it with `POST /v1/restorations`, each with `batch` and a `path`. It
    works on them at once; seal it when all are there, or it is sealed a day after the last. With a `folder` of the server's
    machine everything below it is restored to the same place below `out`; what was done before and is unchanged is skipped. Sent as
    a form, the pictures of a zip (`archive`) are restored, and come back as one.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    made, replayed = _of_archive(ports) if g.body is None else _of_json(ports, g.body)
    response = _answer(ports, made, 201) if isinstance(made, Batch) else jobs_api.answer(ports, made, 202)
    response.headers["Location"] = _there(made) if isinstance(made, Batch) else jobs_api.links(made)["self"]
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
    return _json({"items": [_view(ports, batch, counts[batch.id]).model_dump(mode="json") for batch in shown], "next": after})


@routes.add("GET", "/v1/batches/<batch_id>", {200: BatchView}, problems=KNOWN)
def get_batch(batch_id: str) -> Response:
    """One batch."""
    ports: Ports = current_app.extensions["lacuna"]()
    batch = find(ports, batch_id)
    counts = ports.batches.counts([batch.id])[batch.id]
    if batch.state == BatchState.RUNNING and not counts.waiting + counts.running and ports.batches.finish([batch.id]):
        batch = find(ports, batch_id)  # who looks sees the end at once; upkeep sees it too, with its next round
    return Response(_view(ports, batch, counts).model_dump_json(), content_type="application/json")


@routes.add("GET", "/v1/batches/<batch_id>/items", {200: ItemPage}, query=ItemsQuery, problems=(*KNOWN, "invalid_field", "bad_cursor"))
def list_items(batch_id: str) -> Response:
    """Its files, in the order of their paths."""
    ports: Ports = current_app.extensions["lacuna"]()
    query: ItemsQuery = g.query
    found = ports.batches.items(find(ports, batch_id).id, query.state, query.limit + 1, _read_cursor(query.cursor))
    shown = found[: query.limit]
    after = _cursor(shown[-1]) if len(found) > query.limit else None
    return _json({"items": [_item(item).model_dump(mode="json") for item in shown], "next": after})


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


@routes.add("POST", "/v1/batches/<batch_id>/retry", {200: BatchView}, query=NoQuery, problems=(*KNOWN, "batch_not_open", "output_busy"))
def retry_batch(batch_id: str) -> Response:
    """Do again what failed in a batch.

    Each failed picture in its place, with what was sent, or as it lies in its folder now. What was refused as an upload must be
    sent again.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    batch = find(ports, batch_id)
    first = next(iter(ports.batches.items(batch.id, "failed", 1, "")), None)
    if first is not None:
        like = ports.jobs.listing_of(batch.id) or first.job
        if like is not None:
            _list_again(ports, batch, like)
    return _answer(ports, find(ports, batch_id), 200)


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
    """What became of each file, a line each.

    JSON lines, or CSV with `format=csv`: paths, hashes of what came in and went out, model, parameters, errors, figures.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    query: ManifestQuery = g.query
    batch = find(ports, batch_id)
    rows = (manifest.row(item) for item in manifest.items(ports, batch.id))
    lines, media = (
        (manifest.table(rows), "text/csv; charset=utf-8") if query.format == "csv" else (manifest.lines(rows), "application/x-ndjson")
    )
    response = Response(lines, content_type=media)
    response.headers["Content-Disposition"] = f'attachment; filename="lacuna-{batch.id}.{query.format}"'
    return response


@routes.add("GET", "/v1/batches/<batch_id>/archive", {200: "application/zip"}, problems=(*KNOWN, "batch_state", "too_many_downloads"))
def get_archive(batch_id: str) -> Response:
    """The results of a batch as a zip.

    Each at the path of its picture, what has succeeded so far; `manifest.jsonl` at the end tells of all.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    batch = find(ports, batch_id)
    if not ports.batches.counts([batch.id])[batch.id].succeeded:
        raise Refused("batch_state", f"None of its pictures has succeeded; the batch is {batch.state}.")
    return results.send(ports, batch)


def _of_json(ports: Ports, body: BatchBody) -> tuple[Batch | Job, bool]:
    """What was made, and whether it was made before."""
    given = {"body": json.dumps(body.model_dump(exclude_unset=True), sort_keys=True)}
    return creating.once(
        ports,
        given,
        lambda reservation, fingerprint: _opened(ports, body, reservation, fingerprint),
        lambda made_id: _made_before(ports, made_id),
    )


def _of_archive(ports: Ports) -> tuple[Batch | Job, bool]:
    """The same of an archive."""

    def accept(upload: Upload, reservation: Reservation | None, fingerprint: str) -> Batch | Job:
        job = archives.accept(ports, upload, reservation, fingerprint)
        ports.ringer.ring(job.lane, job.id)
        return find(ports, job.batch_id or "")

    return creating.received(ports, accept, lambda made_id: _made_before(ports, made_id))


def _opened(ports: Ports, body: BatchBody, reservation: Reservation | None, fingerprint: str) -> Batch | Job:
    """An open batch; one of a folder, with the job that lists it; or for a dry run only that job."""
    if body.folder is None:
        return ports.batches.create(str(uuid7()), owner_id(), body.label, reservation, fingerprint)
    check_asked(body)
    if body.task == "inpaint" and not (body.mask or body.masks):
        raise Refused("mask_missing", "Name one `mask` for all, or a folder of `masks`.", fields={"mask": "missing"})
    order = FolderOrder(
        folder=str(PurePosixPath(body.folder)),
        out=str(PurePosixPath(body.out or "")),
        pattern=body.pattern,
        mask=body.mask,
        masks=body.masks,
        references=body.references,
        overwrite=body.on_existing == "overwrite",
        verify=body.verify,
        lane=body.lane or Lane.BULK,
    )
    _check_places(ports, order)
    model = ports.models.resolve(body.task, body.model, owner_id())
    batch_id = None if body.dry_run else str(uuid7())
    new = NewJob(
        id=str(uuid7()), owner_id=owner_id(), kind=Kind.INGEST, lane=Lane.INTERACTIVE, task=body.task, model_name=model.name,
        model_version=model.version, input=_listed("folder", PurePosixPath(order.folder).name, order.json()), params=params(body), pixels=0,
        max_attempts=ports.settings.max_attempts, request_id=g.request_id, label=body.label, batch_id=batch_id, progress_unit="files",
    )  # fmt: skip
    alongside = [ports.models.held(model.name, model.version, new.owner_id)] if model.id is not None else []
    if batch_id is not None:
        told = {name: value for name, value in order.json().items() if value is not None} | {
            "task": body.task,
            "model": f"{model.name}@{model.version}",
        }
        alongside.append(ports.batches.listing(batch_id, new.owner_id, body.label, told | params(body)))
    job = ports.jobs.accept(new, reservation, fingerprint, alongside)
    ports.ringer.ring(job.lane, job.id)
    return job if batch_id is None else find(ports, batch_id)


def _check_places(ports: Ports, order: FolderOrder) -> None:
    """What can be seen at once; the job looks again. Raises `Refused` with the codes of folders."""
    inner, outer = PurePosixPath(order.folder), PurePosixPath(order.out)
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise Refused("folders_overlap")
    roots = ports.outputs.roots
    with roots.source(order.folder), roots.target(order.out) as target:
        if not target.writable():
            raise Refused("output_not_writable")
    for place in filter(None, (order.masks, order.references, order.mask and str(PurePosixPath(order.mask).parent))):
        with roots.source(place):
            pass


def _made_before(ports: Ports, made_id: str) -> Batch | Job:
    """What the request with this key made: an open batch, or the job that lists a folder, and its batch."""
    job = ports.jobs.get(made_id, owner_id())
    return find(ports, made_id) if job is None else job if job.batch_id is None else find(ports, job.batch_id)


def _list_again(ports: Ports, batch: Batch, like: Job) -> None:
    """A job that goes through what failed, in the batch's lane."""
    new = NewJob(
        id=str(uuid7()), owner_id=owner_id(), kind=Kind.INGEST, lane=Lane.INTERACTIVE, task=like.task, model_name=like.model_name,
        model_version=like.model_version, input=_listed("retry", "", like.input.get("order") or {}), params=like.params, pixels=0,
        max_attempts=ports.settings.max_attempts, request_id=g.request_id, label=batch.label, batch_id=batch.id, progress_unit="files",
    )  # fmt: skip
    job = ports.jobs.accept(new, alongside=[ports.batches.rejoining(owner_id(), batch.id)])
    ports.ringer.ring(job.lane, job.id)


def _listed(what: str, name: str, order: dict[str, Any]) -> dict[str, Any]:
    """The input of a job that lists something."""
    return {"name": name, "bytes": 0, "sha256": None, "format": what, "order": order}


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
    view = _view(ports, batch, ports.batches.counts([batch.id])[batch.id])
    return Response(view.model_dump_json(), status, content_type="application/json")


def _view(ports: Ports, batch: Batch, counts: Counts) -> BatchView:
    rate, left = None, counts.waiting + counts.running
    if batch.state in (BatchState.OPEN, BatchState.LISTING, BatchState.RUNNING) and left:
        rate = ports.batches.rate(batch)
    return BatchView(
        id=batch.id, state=batch.state, reason=batch.reason or _held_up(ports, batch, left), label=batch.label, params=batch.params,
        counts={**vars(counts), "total": counts.total}, rate_per_s=rate and round(rate, 3), eta_s=round(left / rate, 1) if rate else None,
        created_at=timestamp(batch.created_at), finished_at=timestamp(batch.finished_at), links=_links(batch, counts),
    )  # fmt: skip


def _held_up(ports: Ports, batch: Batch, left: int) -> str | None:
    """Why nothing more of it is begun though it is not paused."""
    return FULL if left and batch.state in GOING - {BatchState.PAUSED} and disk.nearly_full(ports.settings) else None


def _links(batch: Batch, counts: Counts) -> dict[str, str]:
    there = _there(batch)
    moves = {
        BatchState.OPEN: ("seal", "cancel"), BatchState.LISTING: ("pause", "cancel"), BatchState.RUNNING: ("pause", "cancel"),
        BatchState.PAUSED: ("resume", "cancel"), BatchState.WITH_ERRORS: ("retry",),
    }.get(batch.state, ())  # fmt: skip
    found = {"self": there, "items": f"{there}/items", "manifest": f"{there}/manifest"} | {move: f"{there}/{move}" for move in moves}
    found |= {"archive": f"{there}/archive"} if counts.succeeded else {}
    return found | ({"events": f"{request.script_root}/v1/events?batch={batch.id}"} if batch.state in GOING else {})


def _there(batch: Batch) -> str:
    return f"{request.script_root}/v1/batches/{batch.id}"


def _item(item: Item) -> ItemView:
    if item.job is not None:
        job = item.job
        return ItemView(path=item.path, state=item.state, job=job.id, notes=job.notes, error=job.error, links=jobs_api.links(job))
    noted = item.noted
    notes, error = ([noted.note] if noted and noted.note else []), noted.error if noted else None
    return ItemView(path=item.path, state=item.state, job=None, notes=notes, error=error, links={})


def _cursor(item: Item) -> str:
    return base64.urlsafe_b64encode(item.path.encode()).decode()


def _read_cursor(cursor: str | None) -> str:
    """The path that it names."""
    try:
        path = base64.b64decode((cursor or "").encode(), b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise Refused("bad_cursor") from error
    if "\0" in path:  # which no path of ours holds, and PostgreSQL cannot compare
        raise Refused("bad_cursor")
    return path


def _json(body: Any) -> Response:
    return Response(json.dumps(body), content_type="application/json")
