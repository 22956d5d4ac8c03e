"""What is asked of a folder, as the job that lists it carries it along, and what follows from it for each picture."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from shared.folders import inputs, names
from shared.folders.roots import Roots
from shared.imaging import header
from shared.jobs import job as jobs
from shared.jobs.job import PARTS, Job, NewJob


@dataclass(frozen=True)
class FolderOrder:
    """Everything below `folder` is restored to the same place below `out`. Places are absolute paths on the server's machine."""

    folder: str
    out: str
    pattern: str | None = None  # a shell's, of paths below `folder`; * also crosses folders
    mask: str | None = None  # one file for all
    masks: str | None = None  # a folder with one for each, by name
    references: str | None = None  # a folder with the same pictures undamaged, by name
    overwrite: bool = False  # what else is in the place of an output
    verify: bool = False  # what was done before is known by its contents, not by its times
    lane: str = "bulk"

    def json(self) -> dict[str, Any]:
        """For a row."""
        return asdict(self)


def again(roots: Roots, old: Job, job_id: str, max_pixels: int, max_attempts: int, request_id: str) -> NewJob:
    """A job whose files are read in place once more, as they lie there now. Raises `Refused` where they are not there, or not restored."""
    found: dict[str, Any] = {}
    for name, part in {"": old.input, **{name: old.input[name] for name in PARTS if name in old.input}}.items():
        with roots.source(part["folder"]) as folder:
            found[name] = inputs.described(folder, part["folder"], part["path"], max_pixels)
    given = found.pop("") | found
    new = jobs.again(old, job_id, given, max_attempts, request_id)
    return replace(new, output=output(old, given, **(old.output or {})), pixels=given["width"] * given["height"])


def output(like: Job, found: dict[str, Any], folder: str, overwrite: bool, **_: Any) -> dict[str, Any]:
    """Where the output goes of the picture that `found` describes, of a job with the model, task and parameters of `like`.

    With `asked`, what it depends on beside the picture: the same for the same model version, parameters, mask and reference.
    """
    parts = {name: [found[name][key] for key in ("folder", "path", "bytes", "mtime_ns")] for name in PARTS if name in found}
    asked = json.dumps([like.model, like.task, like.params, parts], sort_keys=True)
    path = names.output(found["path"], found["format"], _written(like, found["format"]))
    return {"folder": folder, "path": path, "overwrite": overwrite, "asked": hashlib.sha256(asked.encode()).hexdigest()}


def _written(like: Job, read: str) -> str:
    """The format that a picture of the format `read` is written in: where it is filled, one that holds known pixels exactly."""
    wanted = str(like.params["format"])
    if wanted != "keep":
        return wanted
    return "PNG" if like.task == "inpaint" and read in header.LOSSY else read
