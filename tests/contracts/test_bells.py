"""One contract for every ringer: the real one over a real Valkey, and its double."""

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from server import valkey
from shared.bells import reach
from shared.bells.bell import TASK
from shared.bells.celery import CeleryRinger, GuardedTransport, celery_app
from shared.bells.memory import MemoryRinger
from shared.bells.ringer import WAITING_BELLS, BackgroundRinger, Ringer, RingFailed
from shared.settings import Settings
from tests.promises.programs import eventually


@dataclass(frozen=True)
class Belfry:
    """A ringer, and what was rung: (lane, job) in order."""

    ringer: Ringer
    rung: Callable[[], list[tuple[str, str]]]


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """An embedded Valkey as `lacunad up` starts it."""
    with tempfile.TemporaryDirectory() as folder:  # short: a socket's path has about a hundred bytes
        settings = Settings(home=Path(folder))
        settings.run.mkdir()
        server = subprocess.Popen(valkey.command(settings.run))
        try:
            eventually("Valkey answers", lambda: reach.state(settings.redis) == "ok")
            yield settings.redis
        finally:
            server.terminate()
            server.wait()


def _over_valkey(url: str) -> Iterator[Belfry]:
    with closing(Redis.from_url(reach.client_url(url))) as redis:
        redis.flushall()

        def rung() -> list[tuple[str, str]]:
            messages = [(lane, json.loads(raw)) for lane in ("interactive", "bulk") for raw in reversed(redis.lrange(lane, 0, -1))]
            assert all(message["headers"]["task"] == TASK for _, message in messages)
            return [(lane, message["headers"]["argsrepr"].strip("[]'")) for lane, message in messages]

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


def test_a_ring_that_nobody_hears_is_told_as_such() -> None:
    ringer = CeleryRinger(celery_app("redis+socket:///nowhere/valkey.sock?virtual_host=0"))
    with pytest.raises(RingFailed):
        ringer.ring("interactive", "a-job")


@pytest.mark.parametrize("url", ["redis+socket:///tmp/v.sock?virtual_host=0", "redis://localhost:1/0", "rediss://localhost:1/0"])
def test_whatever_the_address_the_worker_listens_behind_the_guard(url: str) -> None:
    assert type(celery_app(url).connection_for_read().transport) is GuardedTransport


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
