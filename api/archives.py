"""Archives that users send: placed as they are, beside a row of the job that unpacks them."""

from typing import Any

from flask import g
from uuid_utils import uuid7

from api.owner import owner_id
from api.problems import parse
from api.restorations import check_asked, params
from api.schemas import ArchiveForm
from api.uploads import Part, Upload
from api.wiring import Ports
from shared.archives import archive as archives
from shared.errors import Refused
from shared.jobs.job import Job, Kind, Lane, NewJob, blob_key
from shared.jobs.store import Reservation

ARCHIVE = "archive"


def accept(ports: Ports, upload: Upload, reservation: Reservation | None, fingerprint: str) -> Job:
    """The job that unpacks it; its batch is made with it. The blob is this job's, and lives as long as the job may need it."""
    fields, archive = _checked(upload)
    model = ports.models.resolve(fields.task, fields.model, owner_id())
    job_id, batch_id = str(uuid7()), str(uuid7())
    given = _given(archive, fields, blob_key(job_id, ARCHIVE))
    new = NewJob(
        id=job_id, owner_id=owner_id(), kind=Kind.INGEST, lane=Lane.INTERACTIVE, task=fields.task, model_name=model.name,
        model_version=model.version, input=given, params=params(fields), pixels=0, max_attempts=ports.settings.max_attempts,
        request_id=g.request_id, label=fields.label, batch_id=batch_id, progress_unit="files",
    )  # fmt: skip
    told = {"archive": given["name"], "pattern": fields.pattern, "task": fields.task, "model": f"{model.name}@{model.version}"}
    told = {name: value for name, value in told.items() if value is not None} | params(fields)
    alongside = [ports.models.held(model.name, model.version, new.owner_id)] if model.id is not None else []
    alongside.append(ports.batches.listing(batch_id, new.owner_id, fields.label, told))
    archive.draft.place(given["key"])
    ports.blobs.sync([given["key"]])
    try:
        return ports.jobs.accept(new, reservation, fingerprint, alongside)
    except Refused:  # for certain; after any other error the row may be there, and the sweeper decides
        ports.blobs.delete(given["key"])
        raise


def _checked(upload: Upload) -> tuple[ArchiveForm, Part]:
    """What can be seen at once; the job that unpacks it sees the rest."""
    if ARCHIVE not in upload.parts:
        raise Refused("invalid_field", "The form has no file part named “archive”.", fields={ARCHIVE: "missing"})
    others = {name: part for name, part in upload.parts.items() if name != ARCHIVE}
    fields = parse(ArchiveForm, upload.fields | others)
    if fields.task == "inpaint":
        raise Refused(
            "invalid_field",
            "Pictures of an archive have no masks; send them one by one, or restore a folder of the server's machine.",
            fields={"task": "not of an archive"},
        )
    check_asked(fields)
    with upload.parts[ARCHIVE].draft.reader() as file:
        archives.looks_like_one(file)
    return fields, upload.parts[ARCHIVE]


def _given(archive: Part, fields: ArchiveForm, key: str) -> dict[str, Any]:
    """The input of the job that unpacks it."""
    return {
        "name": archive.name or "archive.zip", "bytes": archive.draft.size, "sha256": archive.draft.sha256(), "format": ARCHIVE, "key": key,
        "asked": {"pattern": fields.pattern, "lane": fields.lane or Lane.BULK},
    }  # fmt: skip
