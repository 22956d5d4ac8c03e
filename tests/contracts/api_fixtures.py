"""A house for the API's contract: real database, real folder, bells in memory. Not a plugin: each test module names its own fixture."""

import hashlib
import io
import json
import queue
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from safetensors.numpy import save
from sqlalchemy import Engine, event, func, select
from werkzeug.test import TestResponse

from api.app import create_app
from api.estimates import Estimates
from api.quota import Quota
from api.watch import Watch
from api.wiring import Ports
from shared.batches.store import Batches
from shared.blobs.local import LocalBlobs
from shared.database.engine import open_database
from shared.database.migration import migrate
from shared.database.tables import jobs as jobs_table
from shared.database.tables import reservations
from shared.datasets.store import Datasets
from shared.errors import Outcome
from shared.folders.outputs import Outputs
from shared.folders.roots import Roots
from shared.jobs.job import Job, Lane, State, Success, blob_key, exported_part, result_part
from shared.jobs.store import Jobs
from shared.keys.store import Keys
from shared.models import registry
from shared.models.manifest import Manifest
from shared.models.store import Models
from shared.settings import Settings
from shared.workers.store import Workers
from tests.databases import Prepared

SOON = 30.0  # seconds after which a test gives up; nothing is measured by it


def manifest(name: str = "denoise", version: int = 1, task: str = "denoise") -> Manifest:
    return Manifest.model_validate(
        {
            "schema": 1, "name": name, "version": version, "task": task, "architecture": "none", "config": {},
            "weights_sha256": "0" * 64, "parameters": 1, "created_at": "2026-01-01T00:00:00Z", "base": None, "recipe": {},
            "data": [{"name": "made up", "sha256": "1" * 64, "images": 1, "terms": "none"}], "metrics": {}, "licence": "Apache-2.0",
        }
    )  # fmt: skip


def png(width: int = 3, height: int = 2, bits: int = 8, animated: bool = False) -> bytes:
    row = b"\0" + b"\7" * (width * bits // 8)
    control = [(b"acTL", struct.pack(">II", 2, 0))] if animated else []
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        *control,
        (b"IDAT", zlib.compress(row * height)),
        (b"IEND", b""),
    ]
    made = b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + made


def jpeg() -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(made, "JPEG")
    return made.getvalue()


def gif() -> bytes:
    made = io.BytesIO()
    Image.new("L", (8, 8)).save(made, "GIF")
    return made.getvalue()


class Answer(TestResponse):
    """What the test client gives; its JSON is for the test to know."""

    @property
    def json(self) -> Any:
        return super().json


class Bells:
    """Remembers what rang, and whether the row was there at that moment."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.rung: list[tuple[str, str]] = []
        self.early: list[str] = []
        self.heard: queue.Queue[str] = queue.Queue()

    def ring(self, lane: str, job_id: str) -> None:
        if self._jobs.get(job_id) is None:
            self.early.append(job_id)
        self.rung.append((lane, job_id))
        self.heard.put(job_id)


@dataclass
class House:
    """One API with all it needs."""

    engine: Engine
    ports: Ports
    bells: Bells
    blobs: Path
    headers: dict[str, str] = field(default_factory=dict)  # that every request carries

    def __post_init__(self) -> None:
        self.app = create_app(lambda: self.ports)
        self.jobs = self.ports.jobs

    def get(self, path: str, **options: Any) -> Answer:
        return cast("Answer", self.app.test_client().get(path, buffered=True, **self._with_headers(options)))

    def head(self, path: str, **options: Any) -> Answer:
        return cast("Answer", self.app.test_client().head(path, buffered=True, **self._with_headers(options)))

    def post(self, path: str, **options: Any) -> Answer:
        return cast("Answer", self.app.test_client().post(path, **self._with_headers(options)))

    def _with_headers(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "headers": {**self.headers, **(options.get("headers") or {})}}

    def put(self, path: str, **options: Any) -> Answer:
        return cast("Answer", self.app.test_client().put(path, **self._with_headers(options)))

    def delete(self, path: str, **options: Any) -> Answer:
        return cast("Answer", self.app.test_client().delete(path, **self._with_headers(options)))

    def restore(self, picture: bytes | None = None, name: str = "a.png", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        image = (io.BytesIO(png() if picture is None else picture), name)
        return self.post("/v1/restorations", data={"image": image, **fields}, headers=headers, content_type="multipart/form-data")

    def restored(self, **options: Any) -> Job:
        answer = self.restore(**options)
        assert answer.status_code == 202, answer.text
        return self.job(answer.json["id"])

    def job(self, job_id: str) -> Job:
        found = self.jobs.get(job_id)
        assert found is not None
        return found

    def claim(self, job_id: str) -> Job:
        """The job in work, whether it is claimed just now or was, in a group."""
        for lane in Lane:
            self.jobs.claim("worker", [lane], 10**9, True)
        job = self.job(job_id)
        assert job.state is State.RUNNING, job.state
        return job

    def succeed(self, job_id: str, data: bytes = b"restored", kind: str = "image/png", metrics: dict[str, Any] | None = None) -> Job:
        job = self.claim(job_id)
        key = blob_key(job.id, result_part(job.token))
        draft = self.ports.blobs.draft()
        draft.write(data)
        draft.place(key)
        result = {
            "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "type": kind, "width": 3, "height": 2, "bits": 8,
            "executor": "tensorflow", "precision": "float32", "seconds": 0.1,
        }  # fmt: skip
        assert self.jobs.succeed([Success(job, result, key, [], metrics)])
        return self.job(job.id)

    def fail(self, job_id: str, code: str = "image_corrupt") -> Job:
        job = self.claim(job_id)
        assert self.jobs.fail(job, Outcome(code, "It is damaged", "Send another.", False))
        return self.job(job.id)

    def publish(self, name: str, version: int = 1, headers: dict[str, str] | None = None, **cares: Any) -> Job:
        """A ready model of one's own, as its publish job left it: with weights and an exported network."""
        weights = save({"a": np.ones((2, 3), np.float16)})
        known = {"weights_sha256": hashlib.sha256(weights).hexdigest(), "parameters": 6, **cares}
        described = json.dumps({**manifest(name, version).model_dump(by_alias=True), **known}).encode()
        files = {"manifest": (io.BytesIO(described), "m"), "weights": (io.BytesIO(weights), "w")}
        answer = self.post("/v1/models", data=files, headers=headers, content_type="multipart/form-data")
        assert answer.status_code == 202, answer.text
        job = self.claim(answer.json["id"])
        model = self.ports.models.get(name, version)
        assert model is not None
        assert model.id is not None
        key = blob_key(model.id, exported_part(job.token))
        draft = self.ports.blobs.draft()
        draft.write(b"a network")
        draft.place(key)
        result = {
            "bytes": 9, "sha256": "0" * 64, "type": "application/x-tar", "exporter": "1", "difference": 1e-7, "halo": 8, "tiled_psnr": 80.0,
            "inexpressible": None, "seconds": 3.2,
        }  # fmt: skip
        assert self.jobs.succeed([Success(job, result, key, [])])
        return self.job(job.id)

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.blobs).as_posix() for path in self.blobs.rglob("*") if path.is_file())

    def count(self, table: Any) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    def left_behind(self) -> dict[str, Any]:
        """Whatever is there that a refused request must not leave."""
        found = {"files": self.files(), "jobs": self.count(jobs_table), "keys": self.count(reservations), "bells": self.bells.rung}
        return {name: what for name, what in found.items() if what}

    def waiting(self, count: int) -> None:
        """Return when so many requests wait for a job."""
        watch = self.ports.watch
        with watch._changed:
            assert watch._changed.wait_for(lambda: watch._waited.total() == count, SOON)


def _prepare(engine: Engine) -> None:
    migrate(engine)
    Models(engine).register([manifest()])


def _prepare_shipped(engine: Engine) -> None:
    migrate(engine)
    Models(engine).register(registry.shipped())


HOUSED = Prepared(_prepare)  # with its tables and one model
SHIPPED = Prepared(_prepare_shipped)  # with its tables and the models that come with Lacuna


@contextmanager
def open_house(home: Path, database: str = "sqlite", busy_ms: int | None = None, shipped: bool = False, **settings: Any) -> Iterator[House]:
    home.mkdir(parents=True, exist_ok=True)
    with (SHIPPED if shipped else HOUSED).taken(database, home) as url:
        known = Settings.model_validate(
            {"home": home, "database_url": url, "min_free": 0, "redis_url": "redis://127.0.0.1:1/0", **settings}
        )
        with _housed(known, busy_ms) as house:
            yield house


@contextmanager
def _housed(known: Settings, busy_ms: int | None) -> Iterator[House]:
    engine = open_database(known.database)
    if busy_ms is not None:
        impatient = f"PRAGMA busy_timeout={busy_ms}" if engine.dialect.name == "sqlite" else f"SET lock_timeout={busy_ms}"

        def hurry(connection: Any, _record: Any) -> None:
            connection.execute(impatient)
            connection.commit()

        event.listen(engine, "connect", hurry)
    jobs, models, workers = Jobs(engine, known.lease_seconds), Models(engine), Workers(engine, known.lease_seconds)
    bells = Bells(jobs)
    ports = Ports(
        settings=known,
        jobs=jobs,
        batches=Batches(engine, jobs),
        models=models,
        datasets=Datasets(engine),
        workers=workers,
        keys=Keys(engine),
        blobs=LocalBlobs(known.blobs),
        outputs=Outputs(Roots.of(known)),
        ringer=bells,
        watch=Watch(jobs),
        estimates=Estimates(jobs, workers, kept_seconds=0),
        quota=Quota(jobs, known.max_queued, again_seconds=0),
    )
    try:
        yield House(engine, ports, bells, known.blobs)
    finally:
        engine.dispose()


class Behind:
    """A call in a thread of its own, whose answer is asked for later."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._answers: queue.Queue[Answer] = queue.Queue()
        self.thread = threading.Thread(target=lambda: self._answers.put(call()), daemon=True)
        self.thread.start()

    def answer(self) -> Answer:
        return self._answers.get(timeout=SOON)


def code(answer: TestResponse) -> str:
    """The code of a problem, whose form is checked on the way."""
    assert answer.content_type == "application/problem+json", answer.text
    problem = json.loads(answer.data)
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem) <= {
        "type", "title", "status", "detail", "code", "request_id", "errors"
    }  # fmt: skip
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    return str(problem["code"])
