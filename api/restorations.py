"""`POST /v1/restorations`: check; publish the blobs; insert the row; then the bell. In this order nothing can be lost."""

from flask import Blueprint, Response, current_app, g
from uuid_utils import uuid7

from api import creating
from api.owner import owner_id
from api.problems import parse
from api.routes import Routes
from api.schemas import JobView, RestorationForm
from api.uploads import Upload
from api.wiring import Ports
from shared.errors import Refused
from shared.imaging import header
from shared.jobs.job import Job, Kind, Lane, NewJob, blob_key
from shared.jobs.store import Reservation

routes = Routes(Blueprint("restorations", __name__))


@routes.add(
    "POST", "/v1/restorations", {200: JobView, 202: JobView}, form=RestorationForm, files=("image",), headers=creating.HEADERS,
    problems=(
        *creating.PROBLEMS, "unsupported_format", "image_empty", "image_truncated", "image_corrupt", "image_bomb", "too_many_pixels",
        "multiple_frames", "unknown_task", "unknown_model",
    ),
)  # fmt: skip
def create_restoration() -> Response:
    """Restore a picture.

    JPEG, PNG, TIFF, WebP or BMP with 8 or 16 bits a channel, as `image`. The answer names the job; `links.result` is the
    restored file once the job has succeeded.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    return creating.create(ports, lambda upload, reservation, fingerprint: _accept(ports, upload, reservation, fingerprint))


def _accept(ports: Ports, upload: Upload, reservation: Reservation | None, fingerprint: str) -> Job:
    if "image" not in upload.parts:
        raise Refused("invalid_field", "The form has no file part named “image”.", fields={"image": "missing"})
    fields = parse(RestorationForm, upload.fields | {name: part for name, part in upload.parts.items() if name != "image"})
    image = upload.parts["image"]
    with image.draft.reader() as file:
        found = header.read(file, image.draft.size, ports.settings.max_pixels)
    longest = header.LONGEST_SIDES.get(fields.format)
    if longest is not None and max(found.width, found.height) > longest:
        raise Refused(
            "invalid_field",
            f"Such a file has at most {longest} pixels a side; ask for PNG or TIFF.",
            fields={"format": "cannot hold it"},
        )
    model = ports.models.resolve(fields.task, fields.model)
    job_id = str(uuid7())
    new = NewJob(
        id=job_id,
        owner_id=owner_id(),
        kind=Kind.RESTORE,
        lane=Lane(fields.lane),
        task=fields.task,
        model_name=model.name,
        model_version=model.version,
        input={
            "name": image.name or "picture", "bytes": image.draft.size, "sha256": image.draft.sha256(), "format": found.format,
            "width": found.width, "height": found.height, "mode": found.mode, "bits": found.bits, "key": blob_key(job_id, "upload"),
        },
        params={"format": fields.format, "speed": fields.speed},
        pixels=found.pixels,
        max_attempts=ports.settings.max_attempts,
        request_id=g.request_id,
        label=fields.label,
    )  # fmt: skip
    image.draft.place(new.input["key"])
    ports.blobs.sync([new.input["key"]])
    try:
        return ports.jobs.accept(new, reservation, fingerprint)
    except Refused:  # for certain; after any other error the row may be there, and the sweeper decides
        ports.blobs.delete(new.input["key"])
        raise
