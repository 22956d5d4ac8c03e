"""Previews: of what a job was sent and made, stored by its worker; and of a file before there is a job, made by a child.

The API decodes nothing itself: what a stranger's file does to a decoder, it does to a process that may die.
"""

import json
import os
import subprocess
import threading
from typing import BinaryIO

from flask import Blueprint, Response, current_app, g, request, send_file

from api import creating
from api import jobs as jobs_api
from api.problems import parse
from api.routes import Routes
from api.schemas import NoQuery, PreviewForm, PreviewQuery
from api.uploads import receiving
from api.wiring import Ports
from shared import children, memory
from shared.errors import Fault, Refused, Transient
from shared.imaging import header
from shared.jobs.job import blob_key, preview_part
from shared.settings import Settings

AT_ONCE = 2  # children that decode; each may take half of what pictures may, and no more than
SECONDS = 30
BASE_BYTES = 256 << 20  # and for each pixel of the picture:
PIXEL_BYTES = 24
FRUGAL = {"VIPS_CONCURRENCY": "1", "MALLOC_ARENA_MAX": "2"}  # address space that a child reserves grows with its threads
REFUSED, TOO_LARGE = 3, 4  # exit statuses of shared/imaging/preview.py, which brings a decoder along

routes = Routes(Blueprint("previews", __name__))

_room = threading.BoundedSemaphore(AT_ONCE)


@routes.add(
    "GET", "/v1/jobs/<job_id>/preview", {200: "image/webp", 304: ""}, query=PreviewQuery, headers={"If-None-Match": "the ETag you have"},
    problems=(
        "bad_id", "job_not_found", "preview_not_found", "not_ready", "no_result", "result_expired", "canceled", "invalid_field",
        "unknown_field", "database_busy",
    ),
)  # fmt: skip
def get_preview(job_id: str) -> Response:
    """A small picture of what a job was sent, or made.

    WebP, at most 1600 pixels a side. There as soon as the job has succeeded; a job that failed answers 409 with its own error.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    query: PreviewQuery = g.query
    job = jobs_api.find(ports, job_id)
    if (refusal := jobs_api.withheld(job)) is not None:
        return refusal
    try:
        file = ports.blobs.open(blob_key(job.id, preview_part(query.of, job.token)))
    except FileNotFoundError as error:
        raise Refused("preview_not_found") from error
    response = send_file(file, mimetype="image/webp", as_attachment=True, download_name=f"{query.of}.webp", conditional=False, etag=False)
    response.content_length = file.seek(0, os.SEEK_END)
    file.seek(0)
    response.headers.update(jobs_api.SANDBOXED)
    response.set_etag(f"{job.id}.{job.token}.{query.of}")
    response.make_conditional(request)
    return response


@routes.add(
    "POST", "/v1/previews", {200: "image/webp"}, query=NoQuery, form=PreviewForm, files=("image",),
    problems=(
        "malformed_multipart", "upload_stalled", "upload_too_large", "unsupported_format", "image_empty", "image_truncated",
        "image_corrupt", "too_many_pixels", "multiple_frames", "unknown_field", "invalid_field", "storage_full", "too_many_uploads",
    ),
)  # fmt: skip
def make_preview() -> Response:
    """A small picture of a file, before there is a job.

    WebP, at most 1600 pixels a side: for files that a browser cannot show. Nothing is stored.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    creating.check_space(ports)
    with receiving(request, ports.blobs, ports.settings, lambda: None) as upload:
        parse(PreviewForm, upload.fields | {name: part for name, part in upload.parts.items() if name != "image"})
        if "image" not in upload.parts:
            raise Refused("invalid_field", "The form has no file part named “image”.", fields={"image": "missing"})
        draft = upload.parts["image"].draft
        with draft.reader() as file:
            pixels = header.read(file, draft.size, ports.settings.max_pixels).pixels
        if not _room.acquire(blocking=False):  # not before: a body may take its time
            raise Transient("too_many_uploads", retry_after_s=2)
        try:
            with draft.reader() as file:
                made = _made(file, draft.size, pixels, ports.settings)
        finally:
            _room.release()
    return Response(made, content_type="image/webp", headers=jobs_api.SANDBOXED)


def _made(file: BinaryIO, size: int, pixels: int, settings: Settings) -> bytes:
    """The preview of a file, by a child that may take so much memory and time. Raises `Refused` with an image code."""
    memory_bytes = min(BASE_BYTES + PIXEL_BYTES * pixels, memory.for_pictures(settings.memory) // AT_ONCE)
    limits = (size, settings.max_pixels, memory_bytes, SECONDS)
    child = children.Child(children.python("shared.imaging.preview", *map(str, limits)), FRUGAL, file, subprocess.PIPE)
    try:
        output, _ = child.process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Refused("too_many_pixels", "It takes too long to read; scale it down, or send it as PNG or JPEG.") from error
    finally:
        child.kill()
        child.close()
    match child.process.returncode:
        case 0:
            return bytes(output)
        case status if status == REFUSED:
            refusal = json.loads(output)
            raise Refused(refusal["code"], refusal["detail"])
        case status if status == TOO_LARGE or status < 0:  # ended by itself, or by the system
            raise Refused("too_many_pixels", "It takes too much memory to read; scale it down.")
        case _:
            raise Fault("internal")
