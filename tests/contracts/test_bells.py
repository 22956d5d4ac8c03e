"""One contract for every ringer: the real one over a real Valkey, and its double."""

import base64
import copy
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.connection import UnixDomainSocketConnection

from server import valkey
from shared.bells import reach
from shared.bells.bell import TASK
from shared.bells.celery import ENOUGH, CeleryRinger, GuardedTransport, celery_app
from shared.bells.memory import MemoryRinger
from shared.bells.ringer import WAITING_BELLS, BackgroundRinger, Ringer, RingFailed
from shared.jobs.job import Lane
from shared.settings import Settings
from tests.promises.programs import PATIENCE_SECONDS, eventually


@dataclass(frozen=True)
class Belfry:
    """A ringer, and what was rung: (lane, job) in order."""

    ringer: Ringer
    rung: Callable[[], list[tuple[str, str]]]


@pytest.fixture(scope="module")
def home() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:  # short: a socket's path has about a hundred bytes
        yield Settings(home=Path(folder))


@contextmanager
def serving(home: Settings) -> Iterator[str]:
    """An embedded Valkey as `lacunad up` starts it; its URL."""
    home.run.mkdir(exist_ok=True)
    server = subprocess.Popen(valkey.command(home.run))
    try:
        eventually("Valkey answers", lambda: reach.state(home.redis) == "ok")
        yield home.redis
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def valkey_url(home: Settings) -> Iterator[str]:
    with serving(home) as url:
        yield url


def bells(redis: Redis) -> list[tuple[str, str]]:
    """What lies in the lanes, oldest first, as (lane, job)."""
    messages = [(lane, json.loads(raw)) for lane in ("interactive", "bulk") for raw in reversed(redis.lrange(lane, 0, -1))]
    assert all(message["headers"]["task"] == TASK for _, message in messages)
    return [(lane, json.loads(base64.b64decode(message["body"]))[0][0]) for lane, message in messages]


def _over_valkey(url: str) -> Iterator[Belfry]:
    with closing(Redis.from_url(reach.client_url(url))) as redis:
        redis.flushall()

        def rung() -> list[tuple[str, str]]:
            return bells(redis)

        yield Belfry(CeleryRinger(celery_app(url)), rung)


@pytest.fixture(params=["memory", "celery"])
def belfry(request: pytest.FixtureRequest) -> Iterator[Belfry]:
    if request.param == "celery":
        yield from _over_valkey(request.getfixturevalue("valkey_url"))
    else:
        ringer = MemoryRinger()
        yield Belfry(ringer, lambda: ringer.rung)


def test_a_bell_names_its_lane_and_the_job_that_rang(belfry: Belfry) -> None:
    belfry.ringer.ring("interactive", "a-job")
    assert belfry.rung() == [("interactive", "a-job")]


def test_every_ring_is_a_bell_of_its_own(belfry: Belfry) -> None:
    for job in ("1", "2", "2"):
        belfry.ringer.ring("interactive", job)
    belfry.ringer.ring("bulk", "3")
    assert belfry.rung() == [("interactive", "1"), ("interactive", "2"), ("interactive", "2"), ("bulk", "3")]


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections that were tried from now on."""
    tried: list[object] = []
    connect: Callable[[UnixDomainSocketConnection], object] = UnixDomainSocketConnection._connect

    def counted(connection: UnixDomainSocketConnection) -> object:
        tried.append(connection)
        return connect(connection)

    monkeypatch.setattr(UnixDomainSocketConnection, "_connect", counted)
    return tried


def test_a_ring_that_nobody_hears_is_told_after_a_few_tries_and_the_next_is_heard_once_the_server_is_back(tries: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Settings(home=Path(folder))
        ringer = CeleryRinger(celery_app(home.redis))
        with serving(home):
            ringer.ring("interactive", "before")
        tries.clear()
        with pytest.raises(RingFailed):
            ringer.ring("interactive", "while it is away")
        assert len(tries) < 10, "the ringer goes on trying: the bells behind this one wait"
        with serving(home) as url, closing(Redis.from_url(reach.client_url(url))) as redis:
            ringer.ring("interactive", "when it is back")
            assert bells(redis) == [("interactive", "when it is back")]


def test_a_server_that_was_flushed_takes_the_next_bell(valkey_url: str) -> None:
    ringer = CeleryRinger(celery_app(valkey_url))
    with closing(Redis.from_url(reach.client_url(valkey_url))) as redis:
        ringer.ring("interactive", "before")
        redis.flushall()
        ringer.ring("interactive", "after")
        assert bells(redis) == [("interactive", "after")]


# -- what others put into a lane ----------------------------------------------------------------------------------------------


def encoded(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


MESSAGE: dict[str, Any] = {
    "body": encoded([["a-job"], {}, {}]),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"task": TASK, "id": "1", "lang": "py"},
    "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "interactive"}, "delivery_tag": "1"},
}
TOO_DEEP = "[" * 100_000
# path in the message → what a forger puts there; each of them ended a worker, or its listening
FORGED: dict[str, list[object]] = {
    "body": ["", "a", "no base64", "\u00e9", None, encoded({}), encoded(5), encoded([5]), base64.b64encode(TOO_DEEP.encode()).decode()],
    "content-encoding": [5, "no such encoding"],
    "content-type": [[], "application/x-python-serialize"],
    "headers": [[], {}, {"task": TASK}, {"task": []}, {"task": "os.system", "id": "1"}],
    "headers.id": [[], None],
    "headers.eta": ["soon", "9999-12-31T23:59:59"],
    "headers.expires": [[], "never"],
    "headers.stamped_headers": [5],
    "headers.compression": ["zip"],
    "properties": [[], {}],
    "properties.body_encoding": ["no such encoding", []],
    "properties.delivery_tag": [[], 5],
    "properties.delivery_info": [5, {}],
    "properties.priority": ["high"],
}


def with_put(path: str, value: object) -> dict[str, Any]:
    """The message, with something else at `path`."""
    message = copy.deepcopy(MESSAGE)
    *parents, last = path.split(".")
    within = message
    for parent in parents:
        within = within[parent]
    within[last] = value
    return message


LISTENER = """
import os, sys
from shared.bells.bell import TASK
from shared.bells.celery import celery_app
from worker.app import _listen
app = celery_app(sys.argv[1])
@app.task(name=TASK)
def bell(job_id):
    os.write(1, job_id.encode() + b"\\n")
_listen(app, ["interactive", "bulk"], 1)
"""


def test_no_message_whatever_it_says_ends_the_worker_or_its_listening(valkey_url: str, tmp_path: Path) -> None:
    forged = [b"\x80\x04\x95 a pickle", b"not JSON", b"[]", TOO_DEEP.encode()]
    forged += [json.dumps(with_put(path, value)).encode() for path, values in FORGED.items() for value in values]
    ringer = CeleryRinger(celery_app(valkey_url))
    with (tmp_path / "log").open("wb") as log:
        listener = subprocess.Popen([sys.executable, "-c", LISTENER, valkey_url], stdout=subprocess.PIPE, stderr=log)
    impatient = threading.Timer(PATIENCE_SECONDS, listener.kill)  # else a listener that no longer listens would be waited for
    impatient.start()
    assert listener.stdout is not None
    try:
        with closing(Redis.from_url(reach.client_url(valkey_url))) as redis:
            redis.flushall()
            for number, message in enumerate(forged):
                redis.lpush("interactive", message)
                redis.publish("/0.celery.pidbox", message)
                ringer.ring("interactive", f"after {number}")
                heard = [listener.stdout.readline().decode().strip()]
                while heard[-1] not in ("", f"after {number}"):
                    heard.append(listener.stdout.readline().decode().strip())
                assert heard[-1], f"the worker ended, or hears nothing any more, after {message[:500]!r}:\n{(tmp_path / 'log').read_text()}"
    finally:
        impatient.cancel()
        listener.kill()
        listener.communicate()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def delivered(message: dict[str, Any], lane: str = "interactive") -> list[dict[str, Any]]:
    """What Celery sees of a message that lies in a lane: the message, or nothing."""
    seen: list[dict[str, Any]] = []
    transport = GuardedTransport.__new__(GuardedTransport)  # without a connection
    transport._callbacks = {lane: seen.append}
    transport._deliver(message, lane)
    return seen


put = anything | anything.map(encoded) | anything.map(lambda value: encoded([[value], {}, {}]))


@settings(max_examples=50)
@given(st.sampled_from([*FORGED]), put)
def test_of_a_lane_the_worker_sees_bells_of_its_own_making_and_nothing_else(path: str, value: object) -> None:
    message = with_put(path, value)
    for bell in delivered(message):
        args, kwargs, options = json.loads(base64.b64decode(bell.pop("body")))
        assert [type(argument) for argument in args] == [str]
        assert (kwargs, options) == ({}, {})
        assert bell["properties"].pop("delivery_tag") == message["properties"]["delivery_tag"], "it could never be acknowledged"
        assert bell["headers"].pop("id")
        assert bell == {
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": TASK, "lang": "py"},
            "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "interactive"}},
        }


@pytest.mark.parametrize("lane", Lane)
def test_a_bell_is_heard_in_every_lane_and_another_task_in_none(lane: Lane) -> None:
    (bell,) = delivered(MESSAGE, lane)
    assert bell["body"] == MESSAGE["body"]
    assert delivered(with_put("headers.task", "os.system"), lane) == []


@pytest.mark.parametrize("job", [5, None, ["a-job"]])
def test_a_bell_that_names_no_job_is_dropped(job: object) -> None:
    assert delivered(with_put("body", encoded([[job], {}, {}]))) == []


@pytest.mark.parametrize("url", ["redis+socket:///tmp/v.sock?virtual_host=0", "redis://localhost:1/0", "rediss://localhost:1/0"])
def test_whatever_the_address_the_worker_listens_behind_the_guard(url: str) -> None:
    assert type(celery_app(url).connection_for_read().transport) is GuardedTransport


def test_a_ringer_with_a_mistake_in_it_rings_the_next_bell_all_the_same() -> None:
    rung = threading.Event()

    class Mistaken:
        def ring(self, lane: str, job_id: str) -> None:
            if job_id == "1":
                raise RuntimeError("a mistake of ours")
            rung.set()

    ringer = BackgroundRinger(Mistaken)
    ringer.ring("interactive", "1")
    ringer.ring("interactive", "2")
    assert rung.wait(60)


class Stuck:
    """A ringer that hangs until it is let go, then fails."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.let_go = threading.Event()
        self.calls = 0

    def ring(self, lane: str, job_id: str) -> None:
        self.calls += 1
        self.called.set()
        self.let_go.wait()
        raise RingFailed(f"{lane} {job_id}")


def test_who_rings_in_the_background_waits_for_nobody_and_hears_of_no_failure() -> None:
    stuck = Stuck()
    ringer = BackgroundRinger(lambda: stuck)
    for index in range(WAITING_BELLS + 10):  # more than there is room for: the rest are dropped
        ringer.ring("interactive", str(index))
    assert stuck.called.wait(60)
    assert stuck.calls == 1
    stuck.let_go.set()
    eventually("the thread outlives its failures", lambda: stuck.calls > WAITING_BELLS - 10)


def test_bells_rung_in_the_background_arrive_in_their_order() -> None:
    arrived: queue.Queue[tuple[str, str]] = queue.Queue()

    class Real:
        def ring(self, lane: str, job_id: str) -> None:
            arrived.put((lane, job_id))

    rung = [("interactive", "1"), ("bulk", "2"), ("interactive", "3")]
    ringer = BackgroundRinger(Real)
    for lane, job_id in rung:
        ringer.ring(lane, job_id)
    assert [arrived.get(timeout=60) for _ in rung] == rung


def test_the_real_ringer_is_made_by_the_thread_and_only_when_a_bell_rings() -> None:
    made: list[str] = []
    rung = threading.Event()

    class Real:
        def ring(self, lane: str, job_id: str) -> None:
            rung.set()

    def make() -> Ringer:
        made.append(threading.current_thread().name)
        return Real()

    ringer = BackgroundRinger(make)
    assert made == []
    ringer.ring("interactive", "1")
    assert rung.wait(60)
    assert made == ["ringer"]


def test_while_nobody_takes_bells_out_a_lane_does_not_fill_up(valkey_url: str) -> None:
    for belfry in _over_valkey(valkey_url):
        for index in range(ENOUGH + 20):
            belfry.ringer.ring("interactive", str(index))
        belfry.ringer.ring("bulk", "another lane")
        assert len(belfry.rung()) == ENOUGH + 1
