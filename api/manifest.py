"""What became of each file of a batch, a line each."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, cast

from flask import json

from api.schemas import timestamp
from api.wiring import Ports
from shared.batches.batch import SHOWN, Item
from shared.jobs.job import Job

PAGE = 500  # rows of a manifest that are read at a time
MANIFEST = ("path", "state", "job", "model", "params", "bytes_in", "sha256_in", "bytes_out", "sha256_out", "type", "executor", "precision",
            "seconds", "attempts", "notes", "error", "detail", "psnr", "ssim", "finished_at")  # fmt: skip
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # with which a cell begins that a spreadsheet would run


def items(ports: Ports, batch_id: str) -> Iterator[Item]:
    """All of them, in the order of their paths."""
    after = ""
    while page := ports.batches.items(batch_id, None, PAGE, after):
        yield from page
        after = page[-1].path


def row(item: Item) -> dict[str, Any]:
    """Of one, by the names of `MANIFEST`."""
    if item.noted is not None:
        noted, error = item.noted, item.noted.error or {}
        known = {"path": item.path, "state": item.state, "bytes_in": noted.bytes, "sha256_in": noted.sha256,
                 "notes": [noted.note] if noted.note else [], "error": error.get("code"), "detail": error.get("detail"),
                 "finished_at": timestamp(noted.noted_at)}  # fmt: skip
        return dict.fromkeys(MANIFEST) | known
    job = cast("Job", item.job)
    result, error, figures = job.result or {}, job.error or {}, (job.metrics or {}).get("output", {})
    return dict(zip(MANIFEST, (
        job.path, SHOWN[job.state], job.id, job.model, job.params, job.input["bytes"], job.input["sha256"], result.get("bytes"),
        result.get("sha256"), result.get("type"), result.get("executor"), result.get("precision"), result.get("seconds"), job.attempts,
        job.notes, error.get("code"), error.get("detail"), figures.get("psnr"), figures.get("ssim"), timestamp(job.finished_at),
    ), strict=True))  # fmt: skip


def lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """As JSON."""
    for each in rows:
        yield json.dumps(each) + "\n"


def table(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """As CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(MANIFEST)
    for each in rows:
        writer.writerow(map(_cell, each.values()))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def _cell(value: Any) -> Any:
    """As a spreadsheet shows it and does not run it."""
    if isinstance(value, dict | list):
        value = json.dumps(value) if value else ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value
