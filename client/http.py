"""Lacuna's HTTP API as a Python program sees it: submit a picture, wait for its job or follow many, fetch the result.

What may pass (a lost connection, 429, 503) is tried again a few times. A POST keeps its `Idempotency-Key` when it is tried
again, so that a picture whose answer was lost is never restored twice.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from client.errors import ClientError, ProblemError, ServerUnreachable, Stopped, UnexpectedAnswer

__all__ = ["FINAL", "Batch", "Dataset", "Job", "Lacuna", "Model", "ProblemError", "ServerUnreachable"]

Job = dict[str, Any]
Batch = dict[str, Any]
Model = dict[str, Any]
Dataset = dict[str, Any]
Answer = TypeVar("Answer")

FINAL = frozenset({"succeeded", "failed", "canceled"})
MOVED = {  # the states that a move of a batch leads to
    "seal": ("running", "succeeded", "completed_with_errors"), "pause": ("paused",),
    "resume": ("running", "succeeded", "completed_with_errors"), "cancel": ("canceled",), "retry": (),
}  # fmt: skip
TRIES = 6  # with the pauses below: about eight seconds, longer than a restart of the server
FIRST_PAUSE_S = 0.25  # doubled after each try
LONGEST_PAUSE_S = 60.0  # a `Retry-After` is followed up to here
QUIET_PAUSE_S = 1.0  # after a stream that told nothing; doubled while the next ones do not either
SHORTEST_POLL_S = 0.5  # the server answers a long poll at once when too many wait; then we do not ask faster than this
PAGE = 500  # the most items that one page of a list holds
CHUNK_BYTES = 1 << 18


class Lacuna:
    """A client of the Lacuna at `base_url`, with a key where it asks for one. Threads may share it.

    Once `stopped` is set (from any thread), pauses, uploads, waits and downloads end with `Stopped`.
    """

    def __init__(self, base_url: str, *, key: str | None = None, stopped: threading.Event | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._stopped = stopped or threading.Event()
        self.answered_at: float | None = None  # of `time.monotonic()`; None: it never did
        self._http = httpx.Client(
            base_url=self.base_url,
            timeout=httpx.Timeout(60, connect=5, pool=None),
            headers={"User-Agent": "lacuna"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            trust_env=not _is_loopback(self.base_url),  # a proxy cannot reach this machine's own addresses
            event_hooks={"response": [self._note_answer]},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def restore(
        self,
        path: Path,
        *,
        mask: Path | None = None,
        reference: Path | None = None,
        task: str = "denoise",
        model: str | None = None,
        format: str = "keep",  # noqa: A002  the API's own word
        quality: int | None = None,
        strength: float | None = None,
        speed: str = "normal",
        label: str | None = None,
        batch: str | None = None,
        place: str | None = None,
        key: str | None = None,
        wait_s: int = 0,
    ) -> Job:
        """Submits the picture at `path`, streamed from disk, and answers with its job.

        `mask` marks what `task="inpaint"` fills; `reference` is the same picture undamaged, to compare with.
        `quality` (1 to 100) is that of a JPEG or WebP; `strength` (above 0, to 1) is how much of the denoising is done.
        In a `batch` it lies at `place`. `key` is the Idempotency-Key, a new one if none is given.
        With `wait_s` (at most 60) seconds the server holds its answer until the job is final or the time is over.
        """
        fields = {"task": task, "format": format, "speed": speed} | _given(
            model=model, label=label, quality=quality, strength=strength, batch=batch, path=place
        )
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"

        def submit() -> Job:
            with contextlib.ExitStack() as opened:
                given = {"image": path, "mask": mask, "reference": reference}
                files = {
                    name: (os.fsencode(file.name).decode(errors="replace"), opened.enter_context(Upload(file, self._stopped)))
                    for name, file in given.items()
                    if file is not None
                }
                return self._ask("POST", "/v1/restorations", data=fields, files=files, headers=headers, timeout=_time_for(wait_s))

        return self._persist(submit)

    def wait(self, job_id: str, on_change: Callable[[Job], object] | None = None, *, poll_s: int = 20) -> Job:
        """The job once it is succeeded, failed or canceled. `on_change` hears of every other look it has on the way.

        One request waits for at most `poll_s` (≤ 60) seconds; progress is seen that often, the end at once.
        """
        seen: Job | None = None
        while True:
            asked_at = time.monotonic()
            job = self.job(job_id, wait_s=poll_s if seen else 0)
            if job != seen and on_change:
                on_change(job)
            if job["state"] in FINAL:
                return job
            if seen and time.monotonic() - asked_at < SHORTEST_POLL_S:
                self._pause(SHORTEST_POLL_S)
            seen = job

    def download(self, job: Job, path: Path, *, part: Path | None = None) -> None:
        """Writes the result of a succeeded job to `path`, replacing what is there: the whole file or nothing.

        Until it is whole it is `part`, in the same folder; one who is killed meanwhile leaves that behind.
        Raises `ClientError("result_damaged")` if its bytes are not those that the job names.
        """
        part = part or path.with_name(f".lacuna-{uuid.uuid4()}.part")
        try:
            if self._persist(lambda: self._fetch(f"{_job_url(job['id'])}/result", part)) != job["result"]["sha256"]:
                raise ClientError("result_damaged", "The result arrived damaged", "Nothing was written. Run the command again.")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def job(self, job_id: str, *, wait_s: int = 0) -> Job:
        """One job. With `wait_s` (at most 60) seconds: when its state changes, or the time is over."""
        params = {"wait": wait_s} if wait_s else {}
        return self._persist(lambda: self._ask("GET", _job_url(job_id), params=params, timeout=_time_for(wait_s)))

    def jobs(self, *, limit: int = 20, **filters: str | None) -> list[Job]:
        """The newest jobs first, at most `limit`; of each filter (`state`, `kind`, `model`, …) that is given, only those it names."""
        return self._items("/v1/jobs", _given(**filters), limit)

    def follow(self, job_id: str | None = None) -> Iterator[Job]:
        """Jobs as they are, then each when it changes, without end; with `job_id` only that one. No state comes twice."""
        versions: dict[str, int] = {}
        last_id, pause_s = "", QUIET_PAUSE_S
        while True:
            stream = self._persist(functools.partial(self._open_events, job_id, last_id))
            quiet = True
            with contextlib.closing(stream), contextlib.suppress(httpx.TransportError):  # it is opened again where it broke off
                for line in stream.iter_lines():
                    name, colon, value = line.partition(":")
                    quiet = quiet and not (colon and name in {"", "data"})  # neither a heartbeat nor an event
                    if name == "id":
                        last_id = value.strip()
                    elif name == "data":
                        job = json.loads(value)
                        if job["version"] > versions.get(job["id"], 0):
                            versions[job["id"]] = job["version"]
                            yield job
            self._pause(pause_s if quiet else FIRST_PAUSE_S)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if quiet else QUIET_PAUSE_S

    def cancel(self, job_id: str) -> Job:
        """Cancels a job that has not ended; this is final at once. Answers with the job."""
        return self._persist(lambda: self._ask("POST", f"{_job_url(job_id)}/cancel"), lambda: self._cancel_again(job_id))

    def retry(self, job_id: str) -> Job:
        """Does a job again that has ended. Answers with the new job."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._persist(lambda: self._ask("POST", f"{_job_url(job_id)}/retry", headers=headers))

    def delete(self, job_id: str) -> None:
        """Deletes a job that has ended, and its files."""
        url = _job_url(job_id)
        self._persist(lambda: self._remove(url), lambda: self._remove(url, done=("job_not_found",)))

    def create_batch(self, label: str | None = None) -> Batch:
        """Opens a batch."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._persist(lambda: self._ask("POST", "/v1/batches", json=_given(label=label), headers=headers))

    def start_folder(self, order: dict[str, Any]) -> Any:
        """Has a folder of the server's machine restored: `folder`, `out` and what else the API takes. The batch; a dry run's job."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._persist(lambda: self._ask("POST", "/v1/batches", json=order, headers=headers))

    def train(self, order: dict[str, Any]) -> Job:
        """Trains a model: `name`, `dataset`, `task` and what else the API takes. Answers with the job."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._persist(lambda: self._ask("POST", "/v1/trainings", json=order, headers=headers))

    def evaluate(self, order: dict[str, Any]) -> Job:
        """Measures models: `models`, `dataset` and what else the API takes. Answers with the job."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._persist(lambda: self._ask("POST", "/v1/evaluations", json=order, headers=headers))

    def metrics(self, job_id: str) -> list[dict[str, Any]]:
        """The figures of a job, in the order in which they were taken."""
        return self._items(f"{_job_url(job_id)}/metrics", {}, None)

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        """What a training left so far, by name."""
        return self._items(f"{_job_url(job_id)}/artifacts", {}, None)

    def batch(self, batch_id: str) -> Batch:
        """One batch, with its counts."""
        return self._persist(lambda: self._ask("GET", _batch_url(batch_id)))

    def batches(self, *, limit: int = 20) -> list[Batch]:
        """The newest batches first, at most `limit`."""
        return self._items("/v1/batches", {}, limit)

    def items(self, batch_id: str, *, state: str | None = None) -> Iterator[dict[str, Any]]:
        """The pictures of a batch in the order of their paths; with `state` only those in it."""
        params = _given(state=state) | {"limit": str(PAGE)}
        while True:
            page = self._page(f"{_batch_url(batch_id)}/items", params)
            yield from page["items"]
            if not page["next"]:
                return
            params |= {"cursor": page["next"]}

    def move_batch(self, batch_id: str, move: str) -> Batch:
        """`seal`, `pause`, `resume`, `cancel` or `retry`. Answers with the batch."""
        url = f"{_batch_url(batch_id)}/{move}"
        return self._persist(lambda: self._ask("POST", url), lambda: self._move_again(batch_id, move))

    def manifest(self, batch_id: str, format: str = "jsonl") -> Iterator[str]:  # noqa: A002  the API's own word
        """What became of each picture of a batch, in pieces of text: JSON lines, or `csv`."""
        with self._http.stream("GET", f"{_batch_url(batch_id)}/manifest", params={"format": format}) as response:
            if not response.is_success:
                response.read()
                raise self._problem(response)
            try:
                yield from response.iter_text()
            except httpx.TransportError as error:
                raise ServerUnreachable(self.base_url) from error

    def send_archive(self, path: Path, **fields: str | float | None) -> Batch:
        """Submits the zip at `path`, streamed from disk, and answers with the batch that its pictures become."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}

        def submit() -> Batch:
            with Upload(path, self._stopped) as file:
                files = {"archive": (os.fsencode(path.name).decode(errors="replace"), file)}
                return self._ask("POST", "/v1/batches", data=_given(**fields), files=files, headers=headers)

        return self._persist(submit)

    def download_archive(self, batch_id: str, path: Path) -> None:
        """Writes the results of a batch to `path`, a zip, replacing what is there: the whole file or nothing."""
        part = path.with_name(f".lacuna-{uuid.uuid4()}.part")
        try:
            self._persist(lambda: self._fetch(f"{_batch_url(batch_id)}/archive", part))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def add_dataset(self, name: str, made: Callable[[threading.Event], AbstractContextManager[Any]], **fields: str | None) -> Job:
        """Submits a zip and answers with the job that makes a data set of it. `fields` are `kind` and `label`.

        Whenever it is sent, `made` gives what it is read from; it ends with `Stopped` once that event is set.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())}

        def submit() -> Job:
            with made(self._stopped) as file:
                files = {"archive": (os.fsencode(name).decode(errors="replace"), file)}
                return self._ask("POST", "/v1/datasets", data=_given(**fields), files=files, headers=headers)

        return self._persist(submit)

    def add_dataset_in_place(self, order: dict[str, Any]) -> Job:
        """Has a data set made of a folder of the server's machine: `folder`, `kind`, `label`. Answers with the job."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._persist(lambda: self._ask("POST", "/v1/datasets", json=order, headers=headers))

    def datasets(self, *, limit: int = 20) -> list[Dataset]:
        """The newest data sets first, at most `limit`."""
        return self._items("/v1/datasets", {}, limit)

    def dataset(self, dataset_id: str) -> Dataset:
        """One data set."""
        return self._persist(lambda: self._ask("GET", _dataset_url(dataset_id)))

    def report(self, dataset_id: str) -> dict[str, Any]:
        """What it was found to hold."""
        return self._persist(lambda: self._ask("GET", f"{_dataset_url(dataset_id)}/report"))

    def delete_dataset(self, dataset_id: str) -> None:
        """Deletes a data set and its files."""
        url = _dataset_url(dataset_id)
        self._persist(lambda: self._remove(url), lambda: self._remove(url, done=("dataset_not_found",)))

    def models(self) -> list[Model]:
        """Every version of every model."""
        return self._items("/v1/models", {}, None)

    def model(self, name: str, version: int) -> Model:
        """One version of a model."""
        return self._persist(lambda: self._ask("GET", _version_url(name, version)))

    def card(self, name: str, version: int) -> str:
        """Its model card, as Markdown."""
        return self._persist(lambda: self._text(f"{_version_url(name, version)}/card"))

    def set_alias(self, name: str, version: int, alias: str) -> Model:
        """Makes `name@alias` mean that version. Answers with the version."""
        return self._persist(lambda: self._ask("PUT", _alias_url(name, alias), json={"version": version}))

    def remove_alias(self, name: str, version: int, alias: str) -> None:
        """Takes an alias away, if it names that version."""
        expected = {"If-Match": f'"{version}"'}
        self._persist(
            lambda: self._remove(_alias_url(name, alias), expected),
            lambda: self._remove(_alias_url(name, alias), expected, done=("model_not_found", "precondition_failed")),
        )

    def set_default(self, task: str, name: str, version: int) -> Model:
        """Makes that version what your jobs of a task use that name no model. Answers with the version."""
        return self._persist(lambda: self._ask("PUT", f"/v1/models/defaults/{task}", json={"model": f"{name}@{version}"}))

    def remove_default(self, task: str) -> None:
        """Goes back to the default that comes with Lacuna."""
        self._persist(lambda: self._remove(f"/v1/models/defaults/{task}"))

    def delete_model(self, name: str, version: int) -> None:
        """Deletes a version of a model of your own, and its files."""
        url = _version_url(name, version)
        self._persist(lambda: self._remove(url), lambda: self._remove(url, done=("model_not_found",)))

    def add_model(self, folder: Path) -> Job:
        """Submits the model in `folder` (`manifest.json` and `weights.safetensors`) and answers with the job that makes it ready."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}

        def submit() -> Job:
            with (folder / "manifest.json").open("rb") as manifest, Upload(folder / "weights.safetensors", self._stopped) as weights:
                files = {"manifest": ("manifest.json", manifest), "weights": ("weights.safetensors", weights)}
                return self._ask("POST", "/v1/models", files=files, headers=headers)

        return self._persist(submit)

    def _items(self, url: str, params: dict[str, str], limit: int | None) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        while limit is None or len(items) < limit:
            size = {} if limit is None else {"limit": str(min(PAGE, limit - len(items)))}
            page = self._page(url, params | size)
            items += page["items"]
            if not page["next"]:
                break
            params = params | {"cursor": page["next"]}
        return items

    def _page(self, url: str, params: dict[str, str]) -> dict[str, Any]:
        return self._persist(lambda: self._ask("GET", url, params=params))

    def _fetch(self, url: str, part: Path) -> str:
        """Streams a file to `part`, down to the disk, and answers with its sha256."""
        digest = hashlib.sha256()
        headers = {"Accept-Encoding": "identity"}
        with self._http.stream("GET", url, headers=headers) as response, part.open("wb") as file:
            if not response.is_success:
                response.read()
                raise self._problem(response)
            for chunk in response.iter_bytes(CHUNK_BYTES):
                if self._stopped.is_set():
                    raise Stopped
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _open_events(self, job_id: str | None, last_id: str) -> httpx.Response:
        """An open stream of events that begins after `last_id`."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        request = self._http.build_request("GET", "/v1/events", params=_given(job=job_id), headers=headers)
        response = self._http.send(request, stream=True)
        if not response.is_success:
            try:
                response.read()
                raise self._problem(response)
            finally:
                response.close()
        return response

    def _cancel_again(self, job_id: str) -> Job:
        """Cancels a job that an earlier try may have canceled."""
        try:
            return self._ask("POST", f"{_job_url(job_id)}/cancel")
        except ProblemError as problem:
            if problem.code != "already_final":
                raise
            job = self._ask("GET", _job_url(job_id))
            if job["state"] != "canceled":
                raise
            return job

    def _move_again(self, batch_id: str, move: str) -> Batch:
        """A move that an earlier try may have made."""
        try:
            return self._ask("POST", f"{_batch_url(batch_id)}/{move}")
        except ProblemError as problem:
            if problem.code not in {"batch_state", "already_final"}:
                raise
            batch = self._ask("GET", _batch_url(batch_id))
            if batch["state"] not in MOVED[move]:
                raise
            return batch

    def _remove(self, url: str, headers: dict[str, str] | None = None, done: tuple[str, ...] = ()) -> None:
        """Deletes what is at `url`; a problem with a code of `done` says that it is."""
        response = self._http.delete(url, headers=headers)
        if not response.is_success:
            problem = self._problem(response)
            if problem.code not in done:
                raise problem

    def _text(self, url: str) -> str:
        response = self._http.get(url)
        if not response.is_success:
            raise self._problem(response)
        if not response.headers.get("Content-Type", "").startswith("text/markdown"):
            raise UnexpectedAnswer(self.base_url, response.status_code)
        return response.text

    def _ask(self, method: str, url: str, **how: Any) -> dict[str, Any]:
        """One request and its JSON object; no second try."""
        response = self._http.request(method, url, **how)
        if not response.is_success:
            raise self._problem(response)
        answer = _json_object(response)
        if answer is None:
            raise UnexpectedAnswer(self.base_url, response.status_code)
        return answer

    def _problem(self, response: httpx.Response) -> ClientError:
        problem = _json_object(response)
        if problem is None or not isinstance(problem.get("code"), str):
            return UnexpectedAnswer(self.base_url, response.status_code)
        after = response.headers.get("Retry-After", "")
        return ProblemError(
            problem["code"],
            str(problem.get("title") or problem["code"]),
            _detail(problem, response.status_code),
            status=response.status_code,
            retry_after_s=float(after) if after.isdecimal() else None,
        )

    def _persist(self, attempt: Callable[[], Answer], again: Callable[[], Answer] | None = None) -> Answer:
        """Makes `attempt` until it succeeds, fails in a way that trying again cannot mend, or failed `TRIES` times.

        From the second try on it makes `again`, if that is given: an earlier one may have done its work, and its answer was lost.
        """
        pause_s = FIRST_PAUSE_S
        for tries_left in reversed(range(TRIES)):
            try:
                return attempt()
            except httpx.TransportError as error:
                if not tries_left or self._is_hopeless(error):
                    raise ServerUnreachable(self.base_url) from error
                self._pause(pause_s)
            except ProblemError as problem:
                if not tries_left or not _may_pass(problem):
                    raise
                self._pause(pause_s if problem.retry_after_s is None else min(problem.retry_after_s, LONGEST_PAUSE_S))
            pause_s *= 2
            attempt = again or attempt
        raise AssertionError("the last try returns or raises")

    def _is_hopeless(self, error: httpx.TransportError) -> bool:
        """Whether nobody has ever answered at this address; a server that did answer may only be restarting."""
        return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol) and self.answered_at is None

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Stopped

    def _note_answer(self, _: httpx.Response) -> None:
        self.answered_at = time.monotonic()


class Upload(io.FileIO):
    """A file that is read until the user stops the program."""

    def __init__(self, path: Path, stopped: threading.Event) -> None:
        super().__init__(path)
        self._stopped = stopped

    def read(self, size: int | None = -1) -> Any:
        """At most `size` bytes."""
        if self._stopped.is_set():
            raise Stopped
        return super().read(-1 if size is None else size)


def _may_pass(problem: ProblemError) -> bool:
    if problem.code == "idempotency_in_progress" or problem.status in {408, 429}:
        return True
    return problem.status == 503 and problem.retry_after_s is not None


def _detail(problem: dict[str, Any], status: int) -> str:
    """The problem's detail in whole sentences, with the fields it is about, or the id under which the log tells more."""
    parts = [str(problem.get("detail") or "")]
    parts += [f"{field['field']}: {field['detail']}" for field in problem.get("errors") or []]
    if status >= 500 and problem.get("request_id"):
        parts.append(f"The request id is {problem['request_id']}.")
    return " ".join(part for part in parts if part)


def _json_object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _given(**fields: str | float | None) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items() if value is not None}


def _job_url(job_id: str) -> str:
    return f"/v1/jobs/{urllib.parse.quote(job_id, safe='')}"


def _batch_url(batch_id: str) -> str:
    return f"/v1/batches/{urllib.parse.quote(batch_id, safe='')}"


def _version_url(name: str, version: int) -> str:
    return f"/v1/models/{urllib.parse.quote(name, safe='')}/versions/{version}"


def _dataset_url(dataset_id: str) -> str:
    return f"/v1/datasets/{urllib.parse.quote(dataset_id, safe='')}"


def _alias_url(name: str, alias: str) -> str:
    return f"/v1/models/{urllib.parse.quote(name, safe='')}/aliases/{urllib.parse.quote(alias, safe='')}"


def _time_for(wait_s: int) -> httpx.Timeout:
    """Seconds for a request that the server may hold for `wait_s`."""
    return httpx.Timeout(60 + wait_s, connect=5, pool=None)


def _is_loopback(base_url: str) -> bool:
    host = urllib.parse.urlsplit(base_url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
