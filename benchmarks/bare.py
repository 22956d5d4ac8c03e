"""What the API is compared with: two views that do only what cannot be left out, under the same gunicorn.

`POST /upload` streams a form to a file, hashes it, and syncs the file and its directory; `GET /constant` gives a job that never changes.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO, Any, cast

from flask import Flask, Response, json, request
from werkzeug.formparser import FormDataParser

EMPTY = ("version", "lane", "model", "label", "batch", "path", "owner", "input", "params", "progress", "position", "eta_s", "notes")
JOB = {"id": "0199", "kind": "restore", "state": "queued", "links": {"self": "/v1/jobs/0199"}, **dict.fromkeys(EMPTY)}

app = Flask("bare")
folder = Path(os.environ["LACUNA_HOME"])


class Sink:
    """A file that is hashed as it is written."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
        self.file = os.fdopen(descriptor, "wb")
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Append."""
        self.hash.update(data)
        return self.file.write(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Werkzeug rewinds what it has written."""
        return 0

    def close(self) -> None:
        """It stays open until it is synced."""


@app.post("/upload")
def upload() -> Response:
    """Receive a file, lastingly."""
    sinks: list[Sink] = []

    def sink(*_: Any, **__: Any) -> IO[bytes]:
        sinks.append(Sink())
        return cast("IO[bytes]", sinks[-1])

    FormDataParser(stream_factory=sink).parse(request.stream, request.mimetype, request.content_length, request.mimetype_params)
    for made in sinks:
        made.file.flush()
        os.fsync(made.file.fileno())
        made.file.close()
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return Response(json.dumps({"sha256": sinks[0].hash.hexdigest()}), 202, content_type="application/json")


@app.get("/constant")
def constant() -> Response:
    """The same answer, always."""
    return Response(json.dumps(JOB), content_type="application/json")


@app.get("/healthz")
def healthz() -> Response:
    """Alive."""
    return Response("{}", content_type="application/json")
