"""One attempt at measuring models on a data set: a child runs them, its figures become the job's."""

import json
import time
from pathlib import Path
from typing import Any

from shared.jobs.job import Success
from worker import artifacts, figures
from worker.committer import Committer
from worker.ending import end
from worker.following import fetch_data, follow
from worker.keeper import Held, LeaseLost
from worker.patience import until_answered
from worker.wiring import Ports


def evaluate(held: Held, ports: Ports, committer: Committer) -> None:
    """Let a child measure, keep its figures, commit."""
    job = held.job
    began = time.monotonic()
    held.begin(float("inf"))  # as long as there are pictures; a child that hangs is seen by its silence
    rows: list[dict[str, Any]] = []
    try:
        with artifacts.making(ports.artifacts.kept) as folder:
            _prepare(held, ports, folder)
            for event in follow(held, "trainer.measuring", folder):
                if event["event"] == "measured":
                    held.progress(event["done"], event["total"])
                elif event["event"] == "evaluation":
                    rows += figures.of_report(event)
        if not until_answered(lambda: ports.jobs.record(job, {}, None, rows, anew=True)):
            raise LeaseLost
        held.conclude()
        result = {
            "bytes": 0, "models": job.input["models"], "pictures": len({row["picture"] for row in rows} - {None}), "rows": len(rows),
            "seconds": round(time.monotonic() - began, 3),
        }  # fmt: skip
        committer.succeed(Success(job, result, None, [], units=max(held.total, 1)))
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)


def _prepare(held: Held, ports: Ports, folder: Path) -> None:
    """The child's folder: the data set, and an order that names the models."""
    job = held.job
    fetch_data(held, ports, folder)
    versions = {reference: reference.partition("@") for reference in job.input["models"]}
    order = {
        "task": job.task,
        "models": {reference: str(ports.artifacts.folder(name, int(version))) for reference, (name, _, version) in versions.items()},
        "set": job.input["name"],
        "sigmas": job.params.get("sigmas"),
        "masks": job.params.get("masks"),
    }
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
