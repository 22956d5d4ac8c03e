"""One attempt at making an added model ready: rebuild it, export it, compare, store what was exported."""

import time

from shared.errors import Refused
from shared.jobs.job import Success, blob_key, exported_part
from trainer.execution import export
from worker import artifacts
from worker.committer import Committer
from worker.ending import end
from worker.keeper import Held
from worker.patience import until_answered
from worker.wiring import Ports

PUBLISH_SECONDS = 900.0  # the child that exports ends sooner


def publish(held: Held, ports: Ports, committer: Committer) -> None:
    """Export in a child with TensorFlow, pack, store, commit. The row of the model follows that of the job."""
    job = held.job
    began = time.monotonic()
    held.begin(PUBLISH_SECONDS)
    try:
        model = until_answered(lambda: ports.artifacts.models.get(job.model_name, job.model_version))
        if model is None or model.id is None or model.job_id != job.id:
            raise Refused("model_not_found", f"{job.model} was replaced meanwhile.")
        held.progress(0, 1)
        with artifacts.making(ports.artifacts.kept) as folder:
            files, exported = folder / "files", folder / export.FOLDER
            ports.artifacts.write(model, files)
            export.make(files, exported, held.check)
            record = export.read_record(exported)
            key = blob_key(model.id, exported_part(job.token))
            draft = ports.blobs.draft()
            try:
                artifacts.pack(exported, draft)
                draft.place(key)  # the committer syncs it
            finally:
                draft.discard()
        result = {
            "bytes": draft.size, "sha256": draft.sha256(), "type": "application/x-tar", "exporter": record.exporter,
            "difference": record.difference, "halo": record.halo, "tiled_psnr": record.tiled_psnr,
            "inexpressible": record.inexpressible or None, "seconds": round(time.monotonic() - began, 3),
        }  # fmt: skip
        held.conclude()
        committer.succeed(Success(job, result, key, notes=[]))
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)
