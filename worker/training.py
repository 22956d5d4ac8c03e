"""One attempt at a training: a child learns, in a folder of its own; what it leaves is stored as it goes; the model follows.

It may die at any moment: the next attempt goes on from the last checkpoint that was stored.
"""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shared.blobs.store import CHUNK_BYTES, Draft
from shared.errors import Fault, Refused
from shared.jobs.job import Success, artifact_part, blob_key, exported_part, weights_part
from shared.models import manifest
from shared.models.manifest import Manifest
from trainer.artifact import WEIGHTS, sha256_of
from trainer.execution import export
from worker import artifacts, figures, memory
from worker.committer import Committer
from worker.ending import end
from worker.following import Said, fetch_data, follow
from worker.keeper import Held, LeaseLost
from worker.patience import until_answered
from worker.wiring import Ports

CHECKPOINT = "checkpoint.safetensors"
TYPES = {".safetensors": "application/octet-stream", ".png": "image/png", ".jsonl": "application/x-ndjson"}


def train(held: Held, ports: Ports, committer: Committer) -> None:
    """Let a child learn, then export what it made, store it, commit. The row of the model follows that of the job."""
    job = held.job
    began = time.monotonic()
    held.begin(float("inf"))  # how long it takes is the user's to say; a child that hangs is seen by its silence
    try:
        model = until_answered(lambda: ports.artifacts.models.get(job.model_name, job.model_version))
        if model is None or model.id is None or model.job_id != job.id:
            raise Refused("model_not_found", f"{job.model} was deleted meanwhile.")
        with artifacts.making(ports.artifacts.kept) as folder:
            left = Left(held, ports, folder, dict(job.artifacts or {}), job.checkpoint_key)
            _prepare(left)
            for event in follow(held, "trainer.running", folder):
                _hear(left, event)
            made = _publish(left, model.id)
        held.conclude()
        committer.succeed(_success(left, made, began))
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)


@dataclass
class Left:
    """What an attempt leaves on its way: in its folder, and of that in the row what users and the next attempt need."""

    held: Held
    ports: Ports
    folder: Path
    artifacts: dict[str, dict[str, Any]]
    checkpoint_key: str | None
    rows: list[dict[str, Any]] = field(default_factory=list)  # figures that the database does not have yet
    anew: bool = False  # whether they are all there are
    notes: list[str] = field(default_factory=list)
    number: int = 0  # of blobs so far

    def store(self, name: str, path: Path) -> str:
        """A file as a blob, under a name that may have been another's before; its key. Not lasting before `record`."""
        self.number += 1
        key = blob_key(self.held.job.id, artifact_part(name, self.held.job.token, self.number))
        draft = self.ports.blobs.draft()
        try:
            _copy(path, draft)
            draft.place(key)
        finally:
            draft.discard()
        self.artifacts[name] = {"key": key, "bytes": draft.size, "sha256": draft.sha256(), "type": TYPES[path.suffix]}
        return key

    def record(self, new: list[str]) -> None:
        """Say in the row what there is now, once the blobs `new` outlast a power cut. Raises `LeaseLost`."""
        job = self.held.job
        self.ports.blobs.sync(new)
        before = {one["key"] for one in (self.held.job.artifacts or {}).values()}
        if not until_answered(lambda: self.ports.jobs.record(job, self.artifacts, self.checkpoint_key, self.rows, self.anew)):
            self.held.lost.set()
            raise LeaseLost
        self.rows, self.anew = [], False
        for key in before - {one["key"] for one in self.artifacts.values()}:  # a sweep would find them after the training's end
            self.ports.blobs.delete(key)
        self.held.job = replace(job, artifacts=dict(self.artifacts), checkpoint_key=self.checkpoint_key)

    def checkpoint(self) -> None:
        """Store what the child wrote last."""
        self.checkpoint_key = self.store(CHECKPOINT, self.folder / CHECKPOINT)
        self.record([self.checkpoint_key])


def _prepare(left: Left) -> None:
    """The child's folder: its order, the data set, the model it starts from, and the checkpoint that it goes on from."""
    job, ports, folder = left.held.job, left.ports, left.folder
    dataset = fetch_data(left.held, ports, folder)
    base = job.input["base"]
    name, _, version = (base or "").partition("@")
    order = {
        "name": job.model_name,
        "version": job.model_version,
        "recipe": job.params,
        "base": str(ports.artifacts.folder(name, int(version))) if base else None,
        "base_reference": base,
        "data": [{"name": job.input["name"], "sha256": dataset.sha256, "images": dataset.images, "terms": job.input["terms"]}],
        "licence": job.input["licence"],
        "memory": memory.budget(ports.settings.memory).call_bytes,
    }
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    if left.checkpoint_key is not None:
        ports.blobs.fetch(left.checkpoint_key, folder / CHECKPOINT)


def _hear(left: Left, event: Said) -> None:
    """Do what follows from one line of the child."""
    what = event["event"]
    if event.get("steps"):  # before its hundredth step a training by minutes does not know how many there are
        left.held.progress(event["step"], event["steps"])
    if what == "started":
        left.rows, left.anew = figures.of_epochs(event["epochs"]), True
    elif what == "epoch":
        left.rows += figures.of_epochs([event])
    elif what == "evaluation":
        left.rows += figures.of_report(event)
    elif what == "note":
        left.notes += [event["note"]] if event["note"] not in left.notes else []
    elif what == "sample":
        left.record([left.store(event["name"], left.folder / "samples" / event["name"])])
    if what in ("epoch", "checkpoint"):
        left.checkpoint()


@dataclass(frozen=True)
class Made:
    """The model, and its blobs."""

    described: Manifest
    record: export.Record
    weights: Draft
    weights_key: str
    exported_key: str


def _publish(left: Left, model_id: str) -> Made:
    """The artifact as blobs: its weights, and the network as it is exported."""
    held, ports, folder = left.held, left.ports, left.folder / "artifact"
    described = manifest.read(folder)
    if sha256_of(folder / WEIGHTS) != described.weights_sha256:
        raise Fault("artifact_invalid", "The weights are not those that their manifest names.")
    export.make(folder, folder / export.FOLDER, held.check)
    token = held.job.token
    weights_key, exported_key = blob_key(model_id, weights_part(token)), blob_key(model_id, exported_part(token))
    weights, exported = ports.blobs.draft(), ports.blobs.draft()
    try:
        _copy(folder / WEIGHTS, weights)
        artifacts.pack(folder / export.FOLDER, exported)
        weights.place(weights_key)
        exported.place(exported_key)
    finally:
        weights.discard()
        exported.discard()
    ports.blobs.sync([weights_key])  # the committer syncs the other
    left.record([])  # the figures of its evaluation
    return Made(described, export.read_record(folder / export.FOLDER), weights, weights_key, exported_key)


def _success(left: Left, made: Made, began: float) -> Success:
    job, record = left.held.job, made.record
    result = {
        "bytes": made.weights.size, "sha256": made.weights.sha256(), "type": "application/octet-stream", "model": made.described.reference,
        "parameters": made.described.parameters, "steps": left.held.total, "exporter": record.exporter, "difference": record.difference,
        "halo": record.halo, "tiled_psnr": record.tiled_psnr, "inexpressible": record.inexpressible or None,
        "seconds": round(time.monotonic() - began, 3),
    }  # fmt: skip
    ready = left.ports.artifacts.models.trained(job.id, made.described, made.weights_key)
    return Success(job, result, made.exported_key, left.notes, units=max(left.held.total, 1), alongside=ready)


def _copy(path: Path, draft: Draft) -> None:
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            draft.write(data)
