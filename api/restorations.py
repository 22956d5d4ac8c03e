"""`POST /v1/restorations`: check; publish the blobs; insert the row; then the bell. In this order nothing can be lost."""

import re
import shutil

from flask import Blueprint, Response, current_app, g, request
from uuid_utils import uuid7

from api import jobs as jobs_api
from api.owner import owner_id
from api.problems import parse
from api.routes import Routes
from api.schemas import JobView, RestorationForm
from api.uploads import Upload, receiving
from api.wiring import Ports
from shared.errors import Refused, Transient
from shared.imaging import header
from shared.jobs.job import Job, Kind, Lane, NewJob, blob_key
from shared.jobs.store import Replay, Reservation

routes = Routes(Blueprint("restorations", __name__))

KEY = re.compile(r"[\x21-\x7e]{1,255}")
LONGEST_WAIT = 60
LONGEST_JPEG_SIDE = 65_500  # pixels, of libjpeg


@routes.add(
    "POST", "/v1/restorations", {200: JobView, 202: JobView}, form=RestorationForm, files=("image",),
    headers={
        "Idempotency-Key": "yours, up to 255 visible ASCII characters: the same key and request give the same job",
        "Prefer": "wait=N holds the answer up to N ≤ 60 seconds until the job is final",
    },
    problems=(
        "malformed_multipart", "idempotency_in_progress", "upload_stalled", "upload_too_large", "unsupported_format", "image_empty",
        "image_truncated", "image_corrupt", "too_many_pixels", "multiple_frames", "unknown_task", "unknown_model", "unknown_field",
        "invalid_field", "idempotency_mismatch", "callbacks_not_offered", "database_busy", "storage_full", "too_many_uploads",
    ),
)  # fmt: skip
def create_restoration() -> Response:
    """Restore a picture.

    PNG or JPEG with 8 bits a channel, as `image`. The answer names the job; `links.result` is the restored file once
    the job has succeeded.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    wait = _wait_seconds()
    if shutil.disk_usage(ports.settings.home).free < ports.settings.min_free:
        raise Transient("storage_full", retry_after_s=60)
    claim = _reserve(ports)
    fulfilled = False
    try:
        with receiving(request, ports.blobs, ports.settings, lambda: _renew(ports, claim)) as upload:
            fingerprint = upload.fingerprint(request.method, request.path)
            if isinstance(claim, Replay):
                job = _replayed(ports, claim, fingerprint)
            else:
                job = _accept(ports, upload, claim, fingerprint)
            fulfilled = True
    finally:
        if isinstance(claim, Reservation) and not fulfilled:
            ports.jobs.drop_reservation(claim)
    if isinstance(claim, Replay):
        return _answer(ports, job, wait, replayed=True)
    ports.ringer.ring(job.lane, job.id)
    return _answer(ports, job, wait)


def _accept(ports: Ports, upload: Upload, reservation: Reservation | None, fingerprint: str) -> Job:
    if "callback_url" in upload.fields:
        raise Refused("callbacks_not_offered", fields={"callback_url": "not offered"})
    if "image" not in upload.parts:
        raise Refused("invalid_field", "The form has no file part named “image”.", fields={"image": "missing"})
    fields = parse(RestorationForm, upload.fields | {name: part for name, part in upload.parts.items() if name != "image"})
    image = upload.parts["image"]
    with image.draft.reader() as file:
        found = header.read(file, image.draft.size, ports.settings.max_pixels)
    if fields.format == "jpeg" and max(found.width, found.height) > LONGEST_JPEG_SIDE:
        raise Refused(
            "invalid_field", f"A JPEG has at most {LONGEST_JPEG_SIDE} pixels a side; ask for PNG.", fields={"format": "cannot hold it"}
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


def _reserve(ports: Ports) -> Reservation | Replay | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not KEY.fullmatch(key):
        raise Refused(
            "invalid_field", "Idempotency-Key takes 1 to 255 visible ASCII characters.", fields={"Idempotency-Key": "not visible ASCII"}
        )
    return ports.jobs.reserve(owner_id(), key)


def _renew(ports: Ports, claim: Reservation | Replay | None) -> None:
    if isinstance(claim, Reservation):
        ports.jobs.renew_reservation(claim)


def _replayed(ports: Ports, replay: Replay, fingerprint: str) -> Job:
    if replay.fingerprint != fingerprint:
        raise Refused("idempotency_mismatch")
    job = ports.jobs.get(replay.job_id, owner_id())
    if job is None:
        raise Refused("job_not_found", "The job of this Idempotency-Key was deleted.")
    return job


def _wait_seconds() -> float | None:
    """The `wait` preference of RFC 7240, or None."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", ",".join(request.headers.getlist("Prefer")))
    return min(int(found[1]), LONGEST_WAIT) if found else None


def _answer(ports: Ports, job: Job, wait: float | None, replayed: bool = False) -> Response:
    if wait is not None:
        job = ports.watch.until_final(job, wait)
    response = jobs_api.answer(ports, job, 200 if wait is not None and job.final else 202)
    response.headers["Location"] = jobs_api.links(job)["self"]
    if not job.final:
        response.headers["Retry-After"] = "1"
    if wait is not None:
        response.headers["Preference-Applied"] = f"wait={wait:g}"
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
