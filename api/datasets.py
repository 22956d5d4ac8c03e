"""Data sets: pictures that networks learn from and are measured with, checked once and kept until they are deleted."""

from pathlib import PurePosixPath
from typing import Any

from flask import Blueprint, Response, current_app, g, json, request
from uuid_utils import uuid7

from api import archives, creating, problems
from api import jobs as jobs_api
from api.owner import owner_id
from api.problems import parse
from api.routes import Routes
from api.schemas import (
    DatasetBody,
    DatasetForm,
    DatasetPage,
    DatasetsQuery,
    DatasetView,
    JobView,
    NoQuery,
    ReportView,
    timestamp,
)
from api.uploads import Upload
from api.wiring import Ports
from shared.archives.archive import looks_like_one
from shared.datasets.store import Dataset
from shared.errors import Refused
from shared.jobs.job import DATASET, Job, Kind, Lane, NewJob, blob_key
from shared.jobs.store import Reservation

routes = Routes(Blueprint("datasets", __name__))

KNOWN = ("bad_id", "dataset_not_found", "unknown_field", "database_busy")


@routes.add(
    "POST", "/v1/datasets", {200: JobView, 202: JobView}, query=NoQuery, body=DatasetBody, form=DatasetForm, files=(archives.ARCHIVE,),
    headers=creating.HEADERS,
    problems=(
        *creating.PROBLEMS, "archive_corrupt", "archive_empty", "path_not_allowed", "folder_not_found", "folder_unreadable", "link_refused",
    ),
)  # fmt: skip
def create_dataset() -> Response:
    """Make a data set of a folder or a zip.

    Of a `folder` of the server's machine, or, sent as a form, of the pictures of a zip (`archive`). The answer is the job that decodes
    and checks every picture; once it has succeeded the set is ready, and holds a copy of all pixels.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    if g.body is None:
        return creating.create(ports, lambda upload, reservation, fingerprint: _of_archive(ports, upload, reservation, fingerprint))
    body: DatasetBody = g.body
    return creating.create_from_json(ports, body, lambda reservation, fingerprint: _of_folder(ports, body, reservation, fingerprint))


@routes.add(
    "GET", "/v1/datasets", {200: DatasetPage}, query=DatasetsQuery,
    problems=("bad_cursor", "invalid_field", "unknown_field", "database_busy"),
)  # fmt: skip
def list_datasets() -> Response:
    """Data sets, newest first."""
    ports: Ports = current_app.extensions["lacuna"]()
    query: DatasetsQuery = g.query
    found = ports.datasets.page(owner_id(), query.limit + 1, jobs_api.read_cursor(query.cursor))
    shown = found[: query.limit]
    after = jobs_api.cursor(shown[-1].id) if len(found) > query.limit else None
    body = {"items": [_view(dataset).model_dump(mode="json") for dataset in shown], "next": after}
    return Response(json.dumps(body), content_type="application/json")


@routes.add("GET", "/v1/datasets/<dataset_id>", {200: DatasetView}, query=NoQuery, problems=KNOWN)
def get_dataset(dataset_id: str) -> Response:
    """One data set."""
    ports: Ports = current_app.extensions["lacuna"]()
    return Response(_view(find(ports, dataset_id)).model_dump_json(), content_type="application/json")


@routes.add("GET", "/v1/datasets/<dataset_id>/report", {200: ReportView}, query=NoQuery, problems=(*KNOWN, "not_ready", "canceled"))
def get_report(dataset_id: str) -> Response:
    """What a data set was found to hold, and every fault.

    Also of one that failed because too much of it cannot be used; one that failed before it was looked through answers 409 with that error.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    dataset = find(ports, dataset_id)
    report = ports.datasets.report(dataset.id, owner_id())
    if report is not None:
        return Response(ReportView.model_validate(report).model_dump_json(), content_type="application/json")
    if dataset.error is not None:
        return problems.answer(dataset.error["code"], dataset.error["detail"], status=409)
    if dataset.state == "failed":
        raise Refused("canceled", "Its job was canceled. Send the pictures again if you want them after all.")
    raise Refused("not_ready", retry_after_s=1)


@routes.add("DELETE", "/v1/datasets/<dataset_id>", {204: ""}, query=NoQuery, problems=(*KNOWN, "in_use"))
def delete_dataset(dataset_id: str) -> Response:
    """Delete a data set and its files.

    Not while a job that has not ended fills it, learns from it or measures with it. The pictures that it was made of stay.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    deleted = ports.datasets.delete(owner_id(), jobs_api.known_id(dataset_id))
    for key in ports.blobs.owned(deleted.id):  # after the row, so that no row names what is gone; the sweeper takes what we leave
        ports.blobs.delete(key)
    return Response(status=204)


def find(ports: Ports, dataset_id: str) -> Dataset:
    """The owner's data set. Raises `Refused` bad_id or dataset_not_found."""
    found = ports.datasets.get(jobs_api.known_id(dataset_id), owner_id())
    if found is None:
        raise Refused("dataset_not_found")
    return found


def _of_folder(ports: Ports, body: DatasetBody, reservation: Reservation | None, fingerprint: str) -> Job:
    folder = str(PurePosixPath(body.folder))
    with ports.outputs.roots.source(folder):  # what can be seen at once; the job looks again
        pass
    given = {"name": PurePosixPath(folder).name, "bytes": 0, "sha256": None, "format": "folder", "folder": folder}
    return _accept(ports, str(uuid7()), body, given, reservation, fingerprint)


def _of_archive(ports: Ports, upload: Upload, reservation: Reservation | None, fingerprint: str) -> Job:
    """The blob is the job's, and lives as long as the job may need it."""
    if archives.ARCHIVE not in upload.parts:
        raise Refused("invalid_field", "The form has no file part named “archive”.", fields={archives.ARCHIVE: "missing"})
    archive = upload.parts[archives.ARCHIVE]
    others = {name: part for name, part in upload.parts.items() if name != archives.ARCHIVE}
    fields = parse(DatasetForm, upload.fields | others)
    with archive.draft.reader() as file:
        looks_like_one(file)
    job_id = str(uuid7())
    key = blob_key(job_id, archives.ARCHIVE)
    given = {
        "name": archive.name or "archive.zip", "bytes": archive.draft.size, "sha256": archive.draft.sha256(), "format": archives.ARCHIVE,
        "key": key,
    }  # fmt: skip
    archive.draft.place(key)
    ports.blobs.sync([key])
    try:
        return _accept(ports, job_id, fields, given, reservation, fingerprint)
    except Refused:  # for certain; after any other error the row may be there, and the sweeper decides
        ports.blobs.delete(key)
        raise


def _accept(
    ports: Ports, job_id: str, asked: DatasetBody | DatasetForm, given: dict[str, Any], reservation: Reservation | None, fingerprint: str
) -> Job:
    """The job that makes a set of what is `given`, and the row of the set."""
    dataset_id = str(uuid7())
    new = NewJob(
        id=job_id, owner_id=owner_id(), kind=Kind.INGEST, lane=Lane.BULK, task="", model_name="", model_version=0,
        input=given | {DATASET: dataset_id, "kind": asked.kind}, params={"kind": asked.kind}, pixels=0,
        max_attempts=ports.settings.max_attempts, request_id=g.request_id, label=asked.label, progress_unit="files",
    )  # fmt: skip
    row = ports.datasets.ingesting(dataset_id, job_id, new.owner_id, asked.kind, asked.label)
    return ports.jobs.accept(new, reservation, fingerprint, [row])


def _view(dataset: Dataset) -> DatasetView:
    there = f"{request.script_root}/v1/datasets/{dataset.id}"
    links = {"self": there, "job": f"{request.script_root}/v1/jobs/{dataset.job_id}"}
    links |= {"report": f"{there}/report"} if dataset.counts is not None else {}
    return DatasetView(
        id=dataset.id, kind=dataset.kind, state=dataset.state, label=dataset.label, job=dataset.job_id, sha256=dataset.sha256,
        images=dataset.images, pixels=dataset.pixels, bytes=dataset.bytes, created_at=timestamp(dataset.created_at),
        report=dataset.counts, error=dataset.error, links=links if dataset.state == "ingesting" else links | {"delete": there},
    )  # fmt: skip
