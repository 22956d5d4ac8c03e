"""The API behind real gunicorn: what only a real connection can do to it."""

import contextlib
import hashlib
import http.client
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest
from sqlalchemy import Engine, func
from sqlalchemy import select as sql_select

from api.stream import STREAMS
from shared.database.engine import READ_ONLY, open_database
from shared.database.tables import jobs, reservations
from tests.contracts.api_fixtures import HOUSED, SOON, png

ROOT = Path(__file__).parents[2]
MAX_UPLOAD = 32_000_000
HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
FORM = "multipart/form-data; boundary=b"


@dataclass
class Server:
    """gunicorn with a home of its own."""

    port: int
    home: Path
    engine: Engine
    stop: Callable[[], None]  # as a supervisor does: SIGTERM

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)

    def post(self, body: bytes | Iterator[bytes], **headers: str) -> tuple[int, Message, dict[str, object]]:
        connection = self.connect()
        try:
            given = {"Content-Type": FORM, **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.request("POST", "/v1/restorations", body, given, encode_chunked=not isinstance(body, bytes))
            answer = connection.getresponse()
            return answer.status, answer.headers, json.loads(answer.read())
        finally:
            connection.close()

    @contextmanager
    def begun(self, *lines: str) -> Iterator[socket.socket]:
        """A connection that has sent a POST's head and nothing of its body."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SOON) as connection:
            head = ["POST /v1/restorations HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Type: {FORM}", *lines]
            connection.sendall("\r\n".join([*head, "", ""]).encode())
            yield connection

    def drafts(self) -> list[Path]:
        return list((self.home / "blobs" / ".drafts").glob("*"))

    def rows(self) -> tuple[int, int, int]:
        """How many jobs, keys and files there are."""
        with self.engine.connect().execution_options(**READ_ONLY) as connection:
            counted = [int(connection.execute(sql_select(func.count()).select_from(table)).scalar_one()) for table in (jobs, reservations)]
        return counted[0], counted[1], len([path for path in (self.home / "blobs").rglob("*") if path.is_file()])


@contextmanager
def serving(home: Path, **settings: str) -> Iterator[Server]:
    home.mkdir(exist_ok=True)
    with HOUSED.taken("sqlite", home) as url, _serving(home, url, **settings) as server:
        yield server


@contextmanager
def _serving(home: Path, url: str, **settings: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LACUNA_")} | {
        "LACUNA_HOME": str(home), "LACUNA_BIND": f"127.0.0.1:{port}", "LACUNA_MIN_FREE": "0", "LACUNA_MAX_UPLOAD": str(MAX_UPLOAD),
        "LACUNA_REDIS_URL": "redis://127.0.0.1:1/0", "PYTHONPATH": str(ROOT), **settings,
    }  # fmt: skip
    engine = open_database(url)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "python:api.serving", "api.wsgi:app"],
            env=environ,
            cwd=home,
            stdout=log,
            stderr=log,
        )
    try:
        server = Server(port, home, engine, process.terminate)
        eventually(lambda: process.poll() is None and answers(server))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(SOON)
        finally:
            process.kill()
            engine.dispose()


def answers(server: Server) -> bool:
    connection = server.connect()
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        select.select([], [], [], 0.02)


def received(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    while data := connection.recv(65536):
        found += data
    return found


def response(connection: socket.socket) -> tuple[int, dict[str, object]]:
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        return answer.status, json.loads(answer.read())
    finally:
        answer.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), LACUNA_STALL_SECONDS="1") as opened:
        yield opened


def test_thirty_megabytes_arrive_whole_with_a_length_and_in_chunks(server: Server) -> None:
    picture = png() + os.urandom(30_000_000)
    body = HEAD + picture + TAIL
    pieces = (body[start : start + 100_001] for start in range(0, len(body), 100_001))
    for sent in (body, pieces):
        status, headers, job = server.post(sent)
        assert status == 202, job
        assert headers["Location"] == f"/v1/jobs/{job['id']}"
        stored = server.home / "blobs" / str(job["id"])[-2:] / str(job["id"]) / "upload"
        assert hashlib.sha256(stored.read_bytes()).digest() == hashlib.sha256(picture).digest()
    assert server.drafts() == []


def test_exactly_the_limit_is_received_and_a_byte_more_is_not(server: Server) -> None:
    body = HEAD + png() + b"x" * (MAX_UPLOAD - len(HEAD) - len(png()) - len(TAIL)) + TAIL
    assert server.post(body)[0] == 202
    assert server.post(iter([body]))[0] == 202
    before = server.rows()
    with server.begun("Transfer-Encoding: chunked") as connection:
        connection.sendall(b"%x\r\n" % (len(body) + 1) + body + b"\n\r\n0\r\n\r\n")
        assert response(connection)[1]["code"] == "upload_too_large"
    assert server.rows() == before


def test_a_length_over_the_limit_is_refused_before_a_byte_of_the_body_came(server: Server) -> None:
    before = server.rows()
    with server.begun(f"Content-Length: {MAX_UPLOAD + 1}", "Idempotency-Key: too-long") as connection:
        status, problem = response(connection)
    assert (status, problem["code"]) == (413, "upload_too_large")
    assert server.rows() == before


@pytest.mark.parametrize("how", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_stalls_is_answered_and_leaves_nothing(server: Server, how: str) -> None:
    before = server.rows()
    with ExitStack() as opened:
        stalled = []
        for number, sent in enumerate((b"", HEAD, HEAD + png()[:20], HEAD + png() + b"x" * 200_000)):
            connection = opened.enter_context(server.begun(how, f"Idempotency-Key: stalls-{number}"))
            connection.sendall(b"%x\r\n" % (len(sent) + 1000) + sent if "chunked" in how else sent)
            stalled.append(connection)
        for connection in stalled:
            status, problem = response(connection)
            assert (status, problem["code"]) == (408, "upload_stalled")
            assert received(connection) == b""
    assert server.rows() == before


@pytest.mark.parametrize(
    ("how", "sent", "expected"),
    [
        ("Content-Length: 14", b'{"version"', (408, "upload_stalled")), ("Transfer-Encoding: chunked", b"e\r\n{", (408, "upload_stalled")),
        ("Content-Length: 1000000", b"", (413, "upload_too_large")), ("Transfer-Encoding: chunked", b"x\r\n", (400, "malformed_json")),
    ],
)  # fmt: skip
def test_a_json_body_that_does_not_come_whole_is_answered(server: Server, how: str, sent: bytes, expected: tuple[int, str]) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=SOON) as connection:
        head = ["PUT /v1/models/denoise/aliases/prod HTTP/1.1", "Host: localhost", "Content-Type: application/json", how, "", ""]
        connection.sendall("\r\n".join(head).encode() + sent)
        status, problem = response(connection)
    assert (status, problem["code"]) == expected


@pytest.mark.parametrize("how", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_client_that_goes_away_leaves_nothing(server: Server, how: str) -> None:
    before = server.rows()
    sent = HEAD + png() + b"x" * 200_000
    with server.begun(how, "Idempotency-Key: goes") as connection:
        connection.sendall(b"%x\r\n" % (len(sent) + 1000) + sent if "chunked" in how else sent)
        eventually(lambda: bool(server.drafts()))
    eventually(lambda: server.rows() == before)


@pytest.mark.parametrize("how", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_body_cut_short_is_refused(server: Server, how: str) -> None:
    before = server.rows()
    sent = HEAD + png()
    with server.begun(how, "Idempotency-Key: short") as connection:
        connection.sendall(b"%x\r\n" % (len(sent) + 1000) + sent if "chunked" in how else sent)
        connection.shutdown(socket.SHUT_WR)
        status, problem = response(connection)
    assert (status, problem["code"]) == (400, "malformed_multipart")
    assert server.rows() == before


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-5\r\nxxxxx\r\n", b"5\r\nxxxxxyy", b"5;\x00\r\nxxxxx\r\n", b"0\r\nbad trailer\r\n\r\n"])
def test_a_damaged_chunk_is_refused_and_its_connection_ends(server: Server, chunk: bytes) -> None:
    before = server.rows()
    with server.begun("Transfer-Encoding: chunked", "Idempotency-Key: damaged") as connection:
        connection.sendall(b"%x\r\n" % len(HEAD) + HEAD + b"\r\n" + chunk + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, problem = response(connection)
        assert (status, problem["code"]) == (400, "malformed_multipart")
        assert received(connection) == b""
    assert server.rows() == before


@pytest.mark.parametrize(
    "lines",
    [("Content-Length: 5", "Transfer-Encoding: chunked"), ("Content-Length: 5", "Content-Length: 6"), ("Content-Length: -1",),
     ("Content-Length: +5",), ("Transfer-Encoding: identity, chunked, identity",), ("Content_Length: 5", "Transfer-Encoding : chunked")],
)  # fmt: skip
def test_a_length_that_can_be_read_in_two_ways_ends_the_connection(server: Server, lines: tuple[str, ...]) -> None:
    before = server.rows()
    with server.begun(*lines) as connection:
        connection.sendall(b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = received(connection)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert server.rows() == before


def test_a_body_that_was_not_read_is_never_the_next_request(server: Server) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection = server.connect()
    connection.request("POST", "/v1/restorations", smuggled, {"Content-Type": "text/plain"})
    first = connection.getresponse()
    assert (first.status, json.loads(first.read())["code"]) == (400, "malformed_multipart")
    connection.request("GET", "/openapi.json")
    assert "openapi" in json.loads(connection.getresponse().read())
    connection.close()


def test_the_same_request_sent_fifty_times_at_once_is_one_job(server: Server) -> None:
    before = server.rows()
    body = HEAD + png(50, 50) + TAIL

    def send(_: int) -> tuple[str, bool]:
        until = time.monotonic() + SOON
        while True:
            status, headers, answer = server.post(body, Idempotency_Key="fifty")
            if status == 202:
                return str(answer["id"]), "Idempotent-Replayed" in headers
            assert answer["code"] in ("idempotency_in_progress", "too_many_uploads"), answer
            assert headers["Retry-After"]
            assert time.monotonic() < until

    with ThreadPoolExecutor(50) as threads:
        answered = list(threads.map(send, range(50)))
    assert len({job_id for job_id, _ in answered}) == 1
    assert [replayed for _, replayed in answered].count(False) == 1
    assert server.rows() == tuple(count + 1 for count in before)


def test_streams_leave_room_for_others_and_give_theirs_back_when_their_client_is_gone(server: Server) -> None:
    with ExitStack() as streams:
        connections = [streams.enter_context(contextlib.closing(server.connect())) for _ in range(STREAMS + 1)]

        def asked(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
            connection.request("GET", "/v1/events")
            return connection.getresponse()

        open_ = [asked(connection) for connection in connections[:STREAMS]]
        assert {answer.status for answer in open_} == {200}
        refused = asked(connections[STREAMS])
        assert (refused.status, json.loads(refused.read())["code"]) == (503, "too_many_streams")
        assert answers(server)
        status, _, job = server.post(HEAD + png() + TAIL)
        assert status == 202
        for answer in open_:
            while not (line := answer.readline()).startswith(b"data: ") or json.loads(line[6:])["id"] != job["id"]:
                assert line
        open_.pop().close()
        connections[STREAMS - 1].close()

        def room() -> bool:
            connections[STREAMS].close()
            return asked(connections[STREAMS]).status == 200

        eventually(room)


def test_a_server_that_stops_refuses_what_is_new_ends_streams_and_finishes_what_it_receives(tmp_path: Path) -> None:
    body = HEAD + png() + b"x" * 200_000 + TAIL
    head = f"POST /v1/restorations HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(tmp_path) as server, ExitStack() as opened:
        upload = opened.enter_context(server.begun(f"Content-Length: {len(body)}"))
        upload.sendall(body[:-10])
        eventually(lambda: bool(server.drafts()))
        late = opened.enter_context(contextlib.closing(server.connect()))
        late.request("GET", "/healthz")
        late.getresponse().read()
        late.sock.sendall(head[:20])
        stream = opened.enter_context(contextlib.closing(server.connect()))
        stream.request("GET", "/v1/events")
        told = stream.getresponse()
        assert told.readline()
        server.stop()
        told.read()  # to its end
        late.sock.sendall(head[20:] + body)
        answer = http.client.HTTPResponse(late.sock)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["code"]) == (503, "shutting_down")
        assert answer.headers["Retry-After"] == "5"
        upload.sendall(body[-10:])
        assert response(upload)[0] == 202
        assert server.rows()[0] == 1


def test_an_upload_that_trickles_ends_when_its_time_is_over(tmp_path: Path) -> None:
    with serving(tmp_path, LACUNA_REQUEST_SECONDS="1.5") as server, server.begun("Content-Length: 1000000") as connection:
        connection.sendall(HEAD)
        eventually(lambda: bool(select.select([connection], [], [], 0)[0]) or not connection.send(b"x"))
        status, problem = response(connection)
        assert (status, problem["code"]) == (408, "upload_stalled")
        assert server.rows() == (0, 0, 0)


def test_a_connection_on_which_a_refused_body_may_still_come_is_ended_and_says_so(server: Server) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for size, kept in ((50_000, True), (200_000, False)):
        connection = server.connect()
        connection.request("POST", "/v1/restorations?x=1", body=bytes(size), headers=form)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (422, "unknown_field")
        assert (answer.getheader("Connection") != "close") == kept
        connection.request("GET", "/healthz")  # on the same one, or on a new one where the answer said so
        assert connection.getresponse().status == 200
        connection.close()
