"""`POST /v1/restorations`: check; publish the blobs; insert the row; then the bell. In this order nothing can be lost."""

from typing import Any

from flask import Blueprint, Response, current_app, g
from uuid_utils import uuid7

from api import creating
from api import jobs as jobs_api
from api.owner import owner_id
from api.problems import parse
from api.routes import Routes
from api.schemas import Asked, JobView, RestorationForm
from api.uploads import Part, Upload
from api.wiring import Ports
from shared.batches.batch import Noted
from shared.errors import Refused
from shared.imaging import header
from shared.imaging.header import Header
from shared.jobs.job import PARTS, Job, Kind, Lane, NewJob, blob_key, input_keys
from shared.jobs.store import Reservation

routes = Routes(Blueprint("restorations", __name__))

FILES = ("image", *PARTS)
BLOBS = {"image": "upload", "mask": "mask", "reference": "reference"}
EXACT = ("keep", "png", "tiff")  # formats that hold every known pixel as it was
_LOSSY = {name.lower() for name in header.LOSSY}


@routes.add(
    "POST", "/v1/restorations", {200: JobView, 202: JobView}, form=RestorationForm, files=("image",), optional_files=PARTS,
    headers=creating.HEADERS,
    problems=(
        *creating.PROBLEMS, "unsupported_format", "image_empty", "image_truncated", "image_corrupt", "image_bomb", "too_many_pixels",
        "multiple_frames", "mask_missing", "mask_size", "reference_size", "unknown_task", "unknown_model", "model_task",
        "bad_id", "batch_not_found", "batch_not_open", "path_taken",
    ),
)  # fmt: skip
def create_restoration() -> Response:
    """Restore a picture.

    JPEG, PNG, TIFF, WebP or BMP with 8 or 16 bits a channel, as `image`; with `task=inpaint` also a `mask`, which is not
    black where the picture is to be filled. With a `reference`, the same picture undamaged, the job tells how close it
    came. The answer names the job; `links.result` is the restored file once the job has succeeded.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    return creating.create(ports, lambda upload, reservation, fingerprint: _accept(ports, upload, reservation, fingerprint))


def _accept(ports: Ports, upload: Upload, reservation: Reservation | None, fingerprint: str) -> Job:
    if "image" not in upload.parts:
        raise Refused("invalid_field", "The form has no file part named “image”.", fields={"image": "missing"})
    files = {name: part for name, part in upload.parts.items() if name in FILES}
    fields = parse(RestorationForm, upload.fields | {name: part for name, part in upload.parts.items() if name not in FILES})
    model = ports.models.resolve(fields.task, fields.model, owner_id())
    batch_id = None if fields.batch is None else jobs_api.known_id(fields.batch)
    try:
        headers = _check(fields, files, ports.settings.max_pixels)
    except Refused as refused:
        if batch_id is not None:
            ports.batches.note(owner_id(), batch_id, _noted(fields, files["image"], refused))
        raise
    job_id = str(uuid7())
    described = {name: _described(part, headers[name], blob_key(job_id, BLOBS[name])) for name, part in files.items()}
    new = NewJob(
        id=job_id,
        owner_id=owner_id(),
        kind=Kind.RESTORE,
        lane=Lane(fields.lane or (Lane.INTERACTIVE if fields.batch is None else Lane.BULK)),
        task=fields.task,
        model_name=model.name,
        model_version=model.version,
        input=described.pop("image") | described,
        params=params(fields),
        pixels=headers["image"].pixels,
        max_attempts=ports.settings.max_attempts,
        request_id=g.request_id,
        label=fields.label,
        batch_id=batch_id,
        path=fields.path,
    )
    keys = sorted(input_keys(new.input))
    for name, part in files.items():
        part.draft.place(blob_key(job_id, BLOBS[name]))
    ports.blobs.sync(keys)
    alongside = [ports.models.held(model.name, model.version, new.owner_id)] if model.id is not None else []  # what comes with Lacuna stays
    if batch_id is not None:
        alongside.append(ports.batches.joining(new.owner_id, batch_id))
    try:
        return ports.jobs.accept(new, reservation, fingerprint, alongside)
    except Refused:  # for certain; after any other error the row may be there, and the sweeper decides
        for key in keys:
            ports.blobs.delete(key)
        raise


def _check(fields: RestorationForm, files: dict[str, Part], max_pixels: int) -> dict[str, Header]:
    """The headers of the files. Raises `Refused` for what they show; what only decoding shows, the worker finds."""
    if fields.task == "inpaint" and "mask" not in files:
        raise Refused("mask_missing", fields={"mask": "missing"})
    if fields.task != "inpaint" and "mask" in files:
        raise Refused("unknown_field", f"task={fields.task} uses no mask; task=inpaint does.", fields={"mask": f"not with {fields.task}"})
    check_asked(fields)
    headers = {name: _header(name, part, max_pixels) for name, part in files.items()}
    sides = sorted((headers["image"].width, headers["image"].height))
    longest = header.LONGEST_SIDES.get(fields.format)
    if longest is not None and sides[1] > longest:
        raise Refused(
            "invalid_field",
            f"Such a file has at most {longest} pixels a side; ask for PNG or TIFF.",
            fields={"format": "cannot hold it"},
        )
    if fields.quality is not None:
        _check_lossy(fields, headers["image"])
    for name in PARTS:
        if name in headers and sorted((headers[name].width, headers[name].height)) != sides:  # EXIF may turn either of them
            found = f"{headers[name].width} × {headers[name].height}"
            wanted = f"{headers['image'].width} × {headers['image'].height}"
            raise Refused(f"{name}_size", f"The {name} has {found} pixels, the picture {wanted}.", fields={name: "another size"})
    return headers


def check_asked(asked: Asked) -> None:
    """Raises `Refused("invalid_field")` for what does not go together, whatever the picture is."""
    if asked.task == "inpaint" and asked.format not in EXACT:
        raise Refused(
            "invalid_field",
            f"A {asked.format} need not hold known pixels as they were; leave `format` out, or ask for png or tiff.",
            fields={"format": "not with inpaint"},
        )
    if asked.task != "denoise" and asked.strength is not None:
        raise Refused(
            "invalid_field",
            f"task={asked.task} has no strength: what is marked is filled, and nothing else changes. Leave `strength` out.",
            fields={"strength": f"not with {asked.task}"},
        )


def params(asked: Asked) -> dict[str, Any]:
    """As a job carries it along; what has no default of its own only if it was asked for."""
    given = {"quality": asked.quality, "strength": asked.strength}
    return {"format": asked.format, "speed": asked.speed} | {name: value for name, value in given.items() if value is not None}


def _noted(fields: RestorationForm, image: Part, refused: Refused) -> Noted:
    """What its batch remembers of a picture that was refused."""
    error = {"code": refused.code, "title": refused.kind.title, "detail": refused.detail, "retryable": False}
    return Noted(fields.path or "", "failed", error, image.draft.size, image.draft.sha256())


def _check_lossy(fields: RestorationForm, image: Header) -> None:
    """Raises `Refused("invalid_field")` where no file is written that has a quality."""
    written = image.format if fields.format == "keep" else fields.format
    if fields.task != "inpaint" and written.lower() in _LOSSY:
        return
    why = "What is filled is written without loss" if fields.task == "inpaint" else f"A {written.upper()} is written without loss"
    raise Refused(
        "invalid_field", f"{why}; leave `quality` out, or restore into a JPEG or WebP.", fields={"quality": "nothing lossy is written"}
    )


def _header(name: str, part: Part, max_pixels: int) -> Header:
    try:
        with part.draft.reader() as file:
            return header.read(file, part.draft.size, max_pixels)
    except Refused as error:
        if name == "image":
            raise
        raise error.of(name) from error


def _described(part: Part, found: Header, key: str) -> dict[str, Any]:
    """What a job remembers of an uploaded file."""
    return {
        "name": part.name or "picture", "bytes": part.draft.size, "sha256": part.draft.sha256(), "format": found.format,
        "width": found.width, "height": found.height, "mode": found.mode, "bits": found.bits, "key": key,
    }  # fmt: skip
