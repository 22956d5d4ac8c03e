"""The client against a small server that plays the API over real HTTP."""

import email
import hashlib
import json
import socketserver
import threading
import urllib.parse
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from client.cli import main
from client.errors import ClientError, ProblemError, ServerUnreachable
from client.http import FINAL, Lacuna
from client.listings import job_table
from client.outputs import Destination
from client.restoring import Order, Outcome, Restoring
from client.screens import Bars, JsonLines, Lines

TRUNCATED = {"code": "image_truncated", "title": "The picture is cut off", "detail": "Copy the file again."}


class FakeApi(ThreadingHTTPServer):
    """Restores by reversing the bytes. Pictures that begin with a word of `BEHAVIOURS` end otherwise."""

    BEHAVIOURS: ClassVar = (b"refuse", b"fail", b"endless")
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.jobs: dict[str, dict[str, Any]] = {}
        self.results: dict[str, bytes] = {}
        self.by_key: dict[str, str] = {}
        self.posts: list[tuple[str, dict[str, str]]] = []  # Idempotency-Key and fields of every POST of a picture
        self.answers: list[tuple[int, str, dict[str, str]] | None] = []  # for the next POSTs: a problem, or a dropped connection
        self.models: list[dict[str, Any]] = []
        self.events: list[list[dict[str, Any]]] = []  # of each stream, one after the other
        self.streams: list[str] = []  # the Last-Event-ID of each
        self.names_wrong_hash = False
        self.loses_answers = 0  # of the next so many deletes and cancels, which are done
        self.authorizations: set[str | None] = set()  # of every request
        self.changed = threading.Condition()

    def accept(self, name: str, picture: bytes, fields: dict[str, str]) -> dict[str, Any]:
        kind = next((word for word in self.BEHAVIOURS if picture.startswith(word)), b"")
        job = _job(name, "png" if fields["format"] == "png" else "jpeg")
        job |= {"model": fields.get("model", "denoise@1"), "label": fields.get("label")}
        result = picture[::-1]
        if kind == b"fail":
            job |= {"state": "failed", "result": None, "error": {**TRUNCATED, "retryable": False}}
        elif kind == b"endless":
            job |= {"state": "running", "result": None, "progress": {"done": 3, "total": 12, "unit": "tiles"}}
        else:
            job["result"]["sha256"] = "0" * 64 if self.names_wrong_hash else hashlib.sha256(result).hexdigest()
        self.jobs[job["id"]] = job
        self.results[job["id"]] = result
        return job


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeApi

    def do_POST(self) -> None:
        self.server.authorizations.add(self.headers["Authorization"])
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            return  # an upload that the client gave up
        if self.path.endswith(("/cancel", "/retry")):
            self._act(*self.path.split("/")[3:])
            return
        fields, name, picture = _form(self.headers["Content-Type"], body)
        key = self.headers["Idempotency-Key"]
        self.server.posts.append((key, fields))
        planned = self.server.answers.pop(0) if self.server.answers else (0, "", {})
        if planned is None:
            self.server.by_key[key] = self.server.accept(name, picture, fields)["id"]
            self.close_connection = True  # after the job was accepted, before anybody is told
        elif planned[0]:
            self._problem(planned[0], {"code": planned[1], "title": "Not now", "detail": "Try again."}, planned[2])
        elif picture.startswith(b"refuse"):
            self._problem(422, TRUNCATED)
        else:
            known = self.server.by_key.get(key)
            self._json(202, self.server.jobs[known] if known else self.server.accept(name, picture, fields))

    def do_DELETE(self) -> None:
        job_id = self.path.split("/")[3]
        if job_id not in self.server.jobs:
            self._missing()
        elif self.server.jobs[job_id]["state"] in ("queued", "running"):
            self._problem(409, {"code": "not_final", "title": "The job has not ended", "detail": "Cancel it first."})
        else:
            del self.server.jobs[job_id]
            if not self._loses():
                self.send_response(204)
                self.end_headers()

    def do_GET(self) -> None:
        self.server.authorizations.add(self.headers["Authorization"])
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        parts = url.path.strip("/").split("/")
        if url.path == "/v1/models":
            self._json(200, {"items": self.server.models, "next": None})
        elif url.path == "/v1/jobs":
            self._list(query)
        elif url.path == "/v1/events":
            self._events(query.get("job", [None])[0])
        elif parts[2] not in self.server.jobs:
            self._missing()
        elif parts[-1] == "result":
            self._bytes(200, "image/jpeg", self.server.results[parts[2]])
        else:
            job = self.server.jobs[parts[2]]
            with self.server.changed:
                self.server.changed.wait_for(lambda: job["state"] != "running", float(query.get("wait", ["0"])[0]))
            self._json(200, job)

    def _list(self, query: dict[str, list[str]]) -> None:
        """Two to a page, so that the client has to turn pages."""
        jobs = [job for job in reversed(self.server.jobs.values()) if job["state"] in query.get("state", [job["state"]])]
        start = int(query.get("cursor", ["0"])[0])
        end = start + min(2, int(query["limit"][0]))
        self._json(200, {"items": jobs[start:end], "next": str(end) if end < len(jobs) else None})

    def _events(self, job_id: str | None) -> None:
        """The next of the planned streams; it breaks off at its end."""
        self.server.streams.append(self.headers.get("Last-Event-ID", ""))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number, job in enumerate(self.server.events.pop(0) if self.server.events else []):
            if job_id in (None, job["id"]):
                self.wfile.write(f": still here\n\nid: {number}\nevent: job\ndata: {json.dumps(job)}\n\n".encode())
        self.close_connection = True

    def _missing(self) -> None:
        self._problem(404, {"code": "job_not_found", "title": "There is no such job", "detail": "Check the id."})

    def _act(self, job_id: str, what: str) -> None:
        if job_id not in self.server.jobs:
            self._missing()
            return
        job = self.server.jobs[job_id]
        if what == "retry":
            job = job | {"id": str(uuid.uuid4()), "state": "queued", "retry_of": job_id}
            self.server.jobs[job["id"]] = job
        elif job["state"] in FINAL:
            self._problem(409, {"code": "already_final", "title": "The job has ended", "detail": "Nothing is left to cancel."})
            return
        else:
            with self.server.changed:
                job["state"] = "canceled"
                self.server.changed.notify_all()
            if self._loses():
                return
        self._json(200, job)

    def _loses(self) -> bool:
        """Whether the connection ends in the place of an answer."""
        self.close_connection = self.server.loses_answers > 0
        self.server.loses_answers -= self.close_connection
        return self.close_connection

    def _problem(self, status: int, problem: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._bytes(status, "application/problem+json", json.dumps(problem | {"status": status}).encode(), headers)

    def _json(self, status: int, answer: Any) -> None:
        self._bytes(status, "application/json", json.dumps(answer).encode())

    def _bytes(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], str, bytes]:
    """The fields, and the name and the bytes of the picture."""
    message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields, picture = {}, ("", b"")
    for part in message.get_payload():
        assert isinstance(part, email.message.Message)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        name = str(part.get_param("name", header="content-disposition"))
        if name == "image":
            picture = (part.get_filename() or "", content)
        else:
            fields[name] = content.decode()
    return fields, *picture


def _job(name: str, output: str) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()), "kind": "restore", "state": "succeeded", "version": 3, "task": "denoise", "model": "denoise@1",
        "label": None, "path": None, "input": {"name": name, "format": "JPEG"}, "progress": None, "position": None, "eta_s": None,
        "created_at": "2026-01-02T03:04:05.000Z", "finished_at": "2026-01-02T03:04:07.000Z", "error": None,
        "result": {"bytes": 7, "sha256": "", "type": f"image/{output}", "width": 4, "height": 3, "seconds": 1.9},
    }  # fmt: skip


class Instant(threading.Event):
    """Never set; its waits end at once and are noted, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def nobody() -> str:
    """An address at which nothing answers."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return picture(tmp_path / "photo.jpg")


def picture(path: Path, content: bytes = b"picture") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def lacuna(server: FakeApi | str, *arguments: str | Path) -> Result:
    url = server if isinstance(server, str) else server.url
    return CliRunner().invoke(main, ["--server", url, *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_restored_picture_lies_beside_its_input_and_nothing_else_does(api: FakeApi, photo: Path) -> None:
    result = lacuna(api, "restore", photo)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (photo.parent / "photo.restored.jpg").read_bytes() == b"erutcip"
    assert names(photo.parent) == ["photo.jpg", "photo.restored.jpg"]


def test_a_result_with_another_hash_is_refused_and_leaves_no_file(api: FakeApi, photo: Path) -> None:
    api.names_wrong_hash = True
    result = lacuna(api, "restore", photo)
    assert result.exit_code == 1
    assert "The result arrived damaged. Nothing was written. Run the command again." in result.stderr
    assert names(photo.parent) == ["photo.jpg"]


def test_a_damaged_result_does_not_replace_the_output_that_was_there(api: FakeApi, photo: Path) -> None:
    before = picture(photo.parent / "photo.restored.jpg", b"before")
    api.names_wrong_hash = True
    assert lacuna(api, "restore", photo, "--overwrite").exit_code == 1
    assert before.read_bytes() == b"before"


def test_an_existing_output_is_not_overwritten_and_nothing_is_sent(api: FakeApi, photo: Path) -> None:
    before = picture(photo.parent / "photo.restored.jpg", b"before")
    result = lacuna(api, "restore", photo)
    assert (result.exit_code, api.posts, before.read_bytes()) == (1, [], b"before")
    assert "photo.restored.jpg exists already. Add --overwrite to replace it" in result.stderr


def test_overwrite_replaces_an_existing_output(api: FakeApi, photo: Path) -> None:
    before = picture(photo.parent / "photo.restored.jpg", b"before")
    assert lacuna(api, "restore", photo, "--overwrite").exit_code == 0
    assert before.read_bytes() == b"erutcip"


def test_a_refused_a_failed_and_a_missing_file_do_not_stop_the_others(api: FakeApi, tmp_path: Path) -> None:
    contents = {"a.jpg": b"refuse", "b.jpg": b"good", "c.jpg": b"fail", "d.jpg": b"well"}
    files = [picture(tmp_path / name, content) for name, content in contents.items()]
    result = lacuna(api, "restore", *files, tmp_path / "missing.jpg")
    assert result.exit_code == 1
    assert sorted(result.stdout.splitlines()) == [f"{tmp_path}/{n}.jpg -> {tmp_path}/{n}.restored.jpg" for n in "bd"]
    *errors, summary = result.stderr.splitlines()
    assert sorted(errors) == [
        f"{tmp_path}/a.jpg: The picture is cut off. Copy the file again.",
        f"{tmp_path}/c.jpg: The picture is cut off. Copy the file again.",
        f"{tmp_path}/missing.jpg: There is no such file. Check its name.",
    ]
    assert summary == "3 of 5 files failed."


def test_an_unreachable_server_is_status_3_and_one_sentence_that_says_what_to_do(nobody: str, photo: Path) -> None:
    result = lacuna(nobody, "restore", photo)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"No Lacuna answers at {nobody}. Start it with `lacunad up`, or name another with --server.\n"
    assert lacuna(nobody, "jobs").exit_code == lacuna(nobody, "models").exit_code == 3


def test_an_error_of_the_server_is_status_3(api: FakeApi, photo: Path) -> None:
    api.answers = [(500, "internal", {})]
    result = lacuna(api, "restore", photo)
    assert (result.exit_code, len(api.posts)) == (3, 1)
    assert result.stderr == f"{photo}: Not now. Try again.\n"


def test_a_pipe_gets_one_plain_line_for_each_finished_file(api: FakeApi, photo: Path) -> None:
    result = lacuna(api, "restore", photo)
    assert result.stdout == f"{photo} -> {photo.parent}/photo.restored.jpg\n"


def test_json_prints_one_object_for_each_file(api: FakeApi, photo: Path, tmp_path: Path) -> None:
    refused = picture(tmp_path / "refused.jpg", b"refuse")
    result = lacuna(api, "restore", photo, refused, "--json")
    told = {line["file"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert told[str(photo)]["output"] == str(tmp_path / "photo.restored.jpg")
    assert told[str(photo)]["state"] == "succeeded"
    assert told[str(refused)] == {"file": str(refused), "job": None, "error": TRUNCATED}


def test_json_may_stand_before_the_command(api: FakeApi, nobody: str) -> None:
    result = CliRunner().invoke(main, ["--json", "models"], env={"LACUNA_SERVER": nobody})
    assert json.loads(result.stdout)["error"]["code"] == "server_unreachable"
    assert lacuna(api, "--json", "models").stdout == ""


def test_a_dropped_connection_repeats_the_post_with_the_same_key_and_makes_one_job(api: FakeApi, photo: Path) -> None:
    api.answers = [None]
    with Lacuna(api.url, stopped=Instant()) as client:
        job = client.restore(photo, label="holiday")
    (first, fields), (second, again) = api.posts
    assert (first, fields) == (second, again)
    assert list(api.jobs) == [job["id"]]


@pytest.mark.parametrize("given", [{"LACUNA_KEY": "lacuna_x"}, {"LACUNA_KEY": ""}, {}])
def test_a_key_is_sent_with_every_request_and_none_is_made_up(api: FakeApi, photo: Path, given: dict[str, str]) -> None:
    for command in (["restore", str(photo), "--out", str(photo.parent / "out") + "/"], ["jobs"], ["models"]):
        result = CliRunner(env={"LACUNA_KEY": None, **given}).invoke(main, ["--server", api.url, *command])
        assert result.exit_code == 0, result.output
    assert api.authorizations == {"Bearer lacuna_x" if given.get("LACUNA_KEY") else None}


def test_a_key_that_no_header_can_hold_is_a_usage_error(api: FakeApi) -> None:
    result = CliRunner(env={"LACUNA_KEY": "lacuna_\nx"}).invoke(main, ["--server", api.url, "jobs"])
    assert result.exit_code == 2
    assert not api.authorizations


def test_quality_and_strength_are_sent_as_they_were_given_and_else_not_at_all(api: FakeApi, photo: Path) -> None:
    assert lacuna(api, "restore", photo, "--quality", "85", "--strength", "0.5").exit_code == 0
    assert lacuna(api, "restore", photo, "--overwrite").exit_code == 0
    (_, given), (_, none) = api.posts
    assert (given["quality"], given["strength"]) == ("85", "0.5")
    assert not {"quality", "strength"} & set(none)


@pytest.mark.parametrize("arguments", [("--quality", "0"), ("--quality", "101"), ("--strength", "0"), ("--strength", "1.1")])
def test_a_quality_or_a_strength_out_of_its_range_is_a_usage_error(api: FakeApi, photo: Path, arguments: tuple[str, str]) -> None:
    result = lacuna(api, "restore", photo, *arguments)
    assert (result.exit_code, api.posts) == (2, [])
    assert "is not in the range" in result.stderr


def test_every_picture_has_a_key_of_its_own(api: FakeApi, photo: Path) -> None:
    with Lacuna(api.url) as client:
        assert client.restore(photo)["id"] != client.restore(photo)["id"]
    assert len({key for key, _ in api.posts}) == 2


@pytest.mark.parametrize("answer", [(429, "slow_down"), (503, "too_many_uploads"), (409, "idempotency_in_progress")])
def test_a_passing_refusal_is_tried_again_after_the_time_that_the_server_names(api: FakeApi, photo: Path, answer: tuple[int, str]) -> None:
    api.answers = [(*answer, {"Retry-After": "7"})]
    pauses = Instant()
    with Lacuna(api.url, stopped=pauses) as client:
        client.restore(photo)
    assert (len(api.posts), pauses.waits) == (2, [7])
    assert len({key for key, _ in api.posts}) == 1


def test_trying_again_has_an_end(api: FakeApi, photo: Path) -> None:
    api.answers = [(503, "storage_full", {"Retry-After": "1"})] * 100
    with Lacuna(api.url, stopped=Instant()) as client, pytest.raises(ProblemError, match="Not now") as caught:
        client.restore(photo)
    assert (caught.value.status, len(api.posts)) == (503, 6)


def test_a_server_that_answered_before_is_looked_for_again_when_it_is_gone(api: FakeApi, photo: Path) -> None:
    pauses = Instant()
    with Lacuna(api.url, stopped=pauses) as client:
        client.models()
        client._http.base_url = "http://127.0.0.1:1"  # nobody is there
        with pytest.raises(ServerUnreachable):
            client.restore(photo)
    assert pauses.waits == [0.25, 0.5, 1, 2, 4]


def test_ctrl_c_cancels_the_jobs_under_way(api: FakeApi, tmp_path: Path) -> None:
    class Interrupted(Lines):
        def changed(self, file: Path, job: dict[str, Any] | None) -> None:
            if job:
                raise KeyboardInterrupt

    files = [picture(tmp_path / f"{n}.jpg", b"endless") for n in range(6)]
    restoring = Restoring(api.url, Order(files, Destination()), Interrupted())
    with pytest.raises(KeyboardInterrupt):
        restoring.run()
    assert 1 <= len(api.jobs) <= 4
    assert {job["state"] for job in api.jobs.values()} == {"canceled"}
    assert sorted(restoring.canceled) == sorted(api.jobs)


def test_ctrl_c_ends_the_command_with_status_130(api: FakeApi, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lines, "changed", interrupt)
    result = lacuna(api, "restore", picture(photo, b"endless"))
    assert result.exit_code == 130
    assert result.stderr.startswith("Stopped.")


def test_in_a_folder_pictures_keep_their_names_and_the_folder_is_made(api: FakeApi, photo: Path, tmp_path: Path) -> None:
    assert lacuna(api, "restore", photo, "--out", f"{tmp_path}/new/").exit_code == 0
    assert lacuna(api, "restore", photo, picture(tmp_path / "b.jpg"), "--out", tmp_path / "both").exit_code == 0
    assert (names(tmp_path / "new"), names(tmp_path / "both")) == (["photo.jpg"], ["b.jpg", "photo.jpg"])


def test_a_picture_whose_format_changes_keeps_its_whole_name(api: FakeApi, photo: Path, tmp_path: Path) -> None:
    assert lacuna(api, "restore", photo, "--format", "png", "--out", f"{tmp_path}/out/").exit_code == 0
    assert lacuna(api, "restore", photo, "--format", "png").exit_code == 0
    assert names(tmp_path / "out") == ["photo.jpg.png"]
    assert names(tmp_path) == ["out", "photo.jpg", "photo.restored.jpg.png"]


def test_two_pictures_of_one_name_do_not_end_in_one_output(api: FakeApi, tmp_path: Path) -> None:
    files = [picture(tmp_path / folder / "a.jpg", folder.encode()) for folder in ("one", "two")]
    result = lacuna(api, "restore", *files, "--out", f"{tmp_path}/out/")
    assert result.exit_code == 1
    assert f"is the output of {files[0]}" in result.stderr
    assert (tmp_path / "out" / "a.jpg").read_bytes() == b"eno"


@pytest.mark.parametrize("arguments", [["--out", "b.png"], ["--format", "gif"], ["--server", "localhost:8080"]])
def test_a_command_that_cannot_be_meant_is_status_2(api: FakeApi, photo: Path, arguments: list[str]) -> None:
    assert lacuna(api, "restore", photo, *arguments).exit_code == 2
    assert api.posts == []


def test_something_else_at_the_address_is_not_taken_for_lacuna(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Handler, "do_GET", lambda handler: handler._bytes(200, "text/html", b"<html>"))
    result = lacuna(api, "models")
    assert result.exit_code == 3
    assert "does not seem to be Lacuna" in result.stderr


def test_jobs_are_listed_newest_first_over_all_pages(api: FakeApi, photo: Path) -> None:
    ids = [api.accept(f"{n}.jpg", b"fail" if n == 1 else b"x", {"format": "keep"})["id"] for n in range(5)]
    listed = [line.split()[0] for line in lacuna(api, "jobs", "--limit", "4").stdout.splitlines()]
    assert listed == ["ID", *reversed(ids[1:])]
    assert [line.split()[0] for line in lacuna(api, "jobs", "--state", "failed").stdout.splitlines()] == ["ID", ids[1]]


def test_a_list_of_jobs_is_aligned_and_shows_how_far_each_is() -> None:
    from datetime import UTC, datetime

    jobs = [_job("a.jpg", "jpeg") | {"id": "1"}, _job("scan\x1b7.jpg", "jpeg") | {"id": "2", "state": "running", "model": None}]
    jobs[1] |= {"result": None, "progress": {"done": 3, "total": 12, "unit": "tiles"}, "eta_s": 9.0}
    assert job_table(jobs, datetime(2026, 1, 2, 3, 9, 5, tzinfo=UTC)) == [
        "ID  STATE      NAME        MODEL      PROGRESS      ETA    AGE",
        "1   succeeded  a.jpg       denoise@1  1.9 s           -  5 min",
        "2   running    scan?7.jpg  -          3/12 tiles  9.0 s  5 min",
    ]


def test_one_job_can_be_shown_and_canceled(api: FakeApi) -> None:
    job_id = api.accept("a.jpg", b"endless", {"format": "keep"})["id"]
    assert "progress  3/12 tiles" in lacuna(api, "jobs", job_id).stdout
    assert lacuna(api, "jobs", "cancel", job_id).stdout == f"{job_id}  canceled\n"
    assert "state     canceled" in lacuna(api, "jobs", "show", job_id).stdout
    missing = lacuna(api, "jobs", "nothing")
    assert (missing.exit_code, missing.stderr) == (1, "There is no such job. Check the id.\n")


def test_jobs_are_done_again_and_deleted_and_one_that_fails_does_not_stop_the_others(api: FakeApi) -> None:
    done, running = (api.accept(f"{word}.jpg", word.encode(), {"format": "keep"})["id"] for word in ("x", "endless"))
    again = lacuna(api, "jobs", "retry", done)
    new = next(job for job in api.jobs.values() if job.get("retry_of") == done)
    assert again.stdout == f"{done}  again as {new['id']}\n"
    deleted = lacuna(api, "jobs", "delete", running, done, "nothing")
    assert (deleted.exit_code, deleted.stdout) == (1, f"{done}  deleted\n")
    assert deleted.stderr.splitlines() == [
        f"{running}: The job has not ended. Cancel it first.",
        "nothing: There is no such job. Check the id.",
    ]
    assert set(api.jobs) == {running, new["id"]}
    told = [json.loads(line) for line in lacuna(api, "--json", "jobs", "delete", new["id"], "nothing").stdout.splitlines()]
    assert [line.get("error", {}).get("code") for line in told] == ["not_final", "job_not_found"]
    assert lacuna(api, "jobs", "delete").exit_code == 2


def test_a_delete_or_a_cancel_whose_answer_was_lost_is_done_and_one_that_comes_too_late_is_not(api: FakeApi) -> None:
    done, running = (api.accept(f"{word}.jpg", word.encode(), {"format": "keep"})["id"] for word in ("x", "endless"))
    with Lacuna(api.url, stopped=Instant()) as client:
        api.loses_answers = 1
        assert client.cancel(running)["state"] == "canceled"
        api.loses_answers = 1
        client.delete(running)
        assert list(api.jobs) == [done]
        for late, expected in ((lambda: client.cancel(running), "job_not_found"), (lambda: client.delete(running), "job_not_found"),
                               (lambda: client.cancel(done), "already_final")):  # fmt: skip
            with pytest.raises(ProblemError) as caught:
                late()
            assert caught.value.code == expected


def test_several_jobs_are_shown_one_below_the_other(api: FakeApi) -> None:
    ids = [api.accept(f"{n}.jpg", b"x", {"format": "keep"})["id"] for n in range(2)]
    first, second = lacuna(api, "jobs", *ids).stdout.split("\n\n")
    assert (first.split()[1], second.split()[1]) == tuple(ids)


def test_jobs_are_filtered_by_what_the_server_filters_by(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answered = _Handler.do_GET

    def noted(handler: _Handler) -> None:
        asked.append(handler.path)
        answered(handler)

    monkeypatch.setattr(_Handler, "do_GET", noted)
    given = ["--state", "failed", "--kind", "publish", "--task", "denoise", "--model", "a@1", "--lane", "bulk", "--label", "b"]
    assert lacuna(api, "jobs", *given, "--limit", "1").exit_code == 0
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(asked[0]).query) == {
        "state": ["failed"], "kind": ["publish"], "task": ["denoise"], "model": ["a@1"], "lane": ["bulk"], "label": ["b"], "limit": ["1"]
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["--state", "failed", "delete", "ID"], ["--label", "a", "ID"], ["--limit", "2", "cancel", "ID"], ["--kind", "train", "watch", "ID"],
     ["watch", "ID", "--state", "failed"]],
)  # fmt: skip
def test_a_filter_that_would_be_dropped_is_a_usage_error(api: FakeApi, arguments: list[str]) -> None:
    job_id = api.accept("a.jpg", b"x", {"format": "keep"})["id"]
    api.events = [[api.jobs[job_id]]]
    refused = lacuna(api, "--json", "jobs", *(job_id if word == "ID" else word for word in arguments))
    assert (refused.exit_code, refused.stdout, list(api.jobs)) == (2, "", [job_id])
    option = next(word for word in arguments if word.startswith("--"))
    assert option in refused.stderr.splitlines()[-1]
    assert not api.authorizations, "it asked the server"


def test_a_job_is_watched_in_a_pipe_line_by_line_until_it_has_ended_also_over_a_broken_stream(api: FakeApi) -> None:
    job = _job("scan\x1b7.jpg", "jpeg")
    running = job | {"state": "running", "version": 2, "result": None, "progress": {"done": 3, "total": 12, "unit": "tiles"}}
    api.events = [[job | {"state": "queued", "version": 1, "result": None}, running], [running, job]]
    watched = lacuna(api, "jobs", "watch", job["id"])
    assert watched.exit_code == 0
    assert watched.stdout.splitlines() == [
        f"{job['id']}  queued     scan?7.jpg",
        f"{job['id']}  running    scan?7.jpg  3/12 tiles",
        f"{job['id']}  succeeded  scan?7.jpg  1.9 s",
    ]
    assert api.streams == ["", "1"]
    api.events = [[job | {"state": "failed", "result": None, "error": {**TRUNCATED, "retryable": False}}]]
    failed = lacuna(api, "--json", "jobs", "watch", job["id"])
    assert (failed.exit_code, json.loads(failed.stdout.splitlines()[0])["state"]) == (1, "failed")
    assert failed.stderr == "The picture is cut off. Copy the file again.\n"


def test_a_stream_that_ends_without_a_word_is_opened_again_after_ever_longer_pauses(api: FakeApi) -> None:
    job = _job("a.jpg", "jpeg")
    api.events = [[], [], [job], [], [job | {"version": 4}]]
    pauses = Instant()
    with Lacuna(api.url, stopped=pauses) as client:
        followed = client.follow()
        assert [next(followed)["version"], pauses.waits] == [3, [1, 2]]
        assert [next(followed)["version"], pauses.waits] == [4, [1, 2, 0.25, 1]]
        followed.close()  # type: ignore[attr-defined]  # a generator


@pytest.mark.parametrize("given", ["--label ours", "--model denoise", "--model denoise@1"])
def test_only_jobs_that_match_are_watched(api: FakeApi, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    ours, other = _job("a.jpg", "jpeg") | {"label": "ours"}, _job("b.jpg", "jpeg") | {"model": "denoise-x@1"}
    api.events = [[other, ours]]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lacuna, "_pause", stop)
    monkeypatch.setattr(Lacuna, "_open_events", once(Lacuna._open_events, stop))
    watched = lacuna(api, "jobs", "watch", *given.split())
    assert watched.exit_code == 130
    assert watched.stdout == f"{ours['id']}  succeeded  a.jpg  1.9 s\n"


def once(first: Any, then: Any) -> Any:
    """A function that is `first` at its first call and `then` at the others."""
    functions = [first]

    def call(*given: Any) -> Any:
        return functions.pop()(*given) if functions else then(*given)

    return call


def test_models_are_listed_with_the_psnr_they_were_measured_at(api: FakeApi) -> None:
    rows = [
        {"sigma": 15, "psnr": 34.123, "ssim": 0.93},
        {"sigma": 25, "psnr": 31.5, "ssim": 0.89, "method": "denoise@1"},
        {"sigma": 25, "psnr": 24.3, "ssim": 0.63, "method": "opencv-nlm"},  # measured beside it
    ]
    model = {"name": "denoise", "version": 1, "task": "denoise", "parameters": 1_061_000, "licence": "Apache-2.0"}
    measured = model | {
        "metrics": {"evaluations": [{"protocol": "p", "set": "cbsd68", "rows": rows}]},
        "default": True,
        "aliases": ["prod"],
    }
    plain = {"metrics": {}, "default": False, "aliases": []}
    api.models = [measured, model | plain | {"version": 2}, model | plain | {"version": 3, "state": "preparing"}]
    assert lacuna(api, "models").stdout.splitlines() == [
        "MODEL      TASK     PARAMETERS  PSNR AT 15  PSNR AT 25  MEASURED ON  USED AS",
        "denoise@1  denoise      1.06 M    34.12 dB    31.50 dB  cbsd68       default, prod",
        "denoise@2  denoise      1.06 M           -           -  -",
        "denoise@3  denoise      1.06 M           -           -  -            preparing",
    ]


def test_a_folder_that_holds_no_model_is_a_usage_error_that_says_what_is_missing(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    result = lacuna(api, "models", "add", str(tmp_path))
    assert result.exit_code == 2
    assert "holds no weights.safetensors" in result.stderr
    assert not api.posts


def test_a_terminal_keeps_a_line_for_each_finished_file(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Bars()
    with screen.showing():
        screen.changed(Path("[a].jpg"), None)
        screen.changed(Path("[a].jpg"), _job("a", "jpeg") | {"state": "running", "progress": {"done": 3, "total": 12, "unit": "tiles"}})
        screen.finished(Outcome(Path("[a].jpg"), output=Path("[a].restored.jpg")))
        screen.finished(Outcome(Path("b.jpg"), error=ClientError("x", "It is empty", "Send another.")))
    assert "[a].jpg -> [a].restored.jpg\nb.jpg: It is empty. Send another.\n" in capsys.readouterr().out


def test_a_terminal_shows_how_far_all_files_are_below_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from rich.console import Console

    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    screen = Bars(files=3)
    monkeypatch.setattr("time.monotonic", lambda: 104.0)
    with screen.showing():
        screen.changed(Path("a.jpg"), None)
        screen.changed(Path("b.jpg"), _job("b", "jpeg") | {"state": "running", "eta_s": 60.0})
        screen.finished(Outcome(Path("a.jpg"), output=Path("a.restored.jpg")))
        console = Console(file=StringIO(), width=100)
        console.print(screen._progress.get_renderable())
        shown = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO
    assert [line.split()[0] for line in shown] == ["b.jpg", "all"]
    assert shown[1].rstrip().endswith("1 of 3 files, about 60 s")


def test_names_that_are_not_utf_8_survive_json(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines().finished(Outcome(Path("\udcff.jpg"), error=ClientError("x", "It is empty", "Send another.")))
    assert json.loads(capsys.readouterr().out)["file"] == "\udcff.jpg"
