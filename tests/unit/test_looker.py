"""The worker finds its work without any bell, sooner while Redis is away."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from shared.settings import Settings
from worker.looker import AWAY_SECONDS, Looker
from worker.loop import Loop


class Working:
    """A loop whose run lasts until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.entered = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        self.entered.set()
        assert self.let_go.wait(60)
        self.ended.set()


class Stopped:
    """In place of the looker's event: remembers how long it would wait, and ends the third wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def set(self) -> None:
        """The third wait ends it anyway."""

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) == 3


def looker(loop: object, redis_state: Callable[[str], str], look_seconds: float = 2) -> Looker:
    return Looker(cast(Loop, loop), Settings(home=Path("/nowhere"), look_seconds=look_seconds), redis_state)


def waits(redis_states: list[str], look_seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    loop, stopped = Working(), Stopped()
    loop.let_go.set()
    told = iter(redis_states)
    looking = looker(loop, lambda _: next(told), look_seconds)
    monkeypatch.setattr(looking, "_stopped", cast(Any, stopped))
    looking.start()
    looking._thread.join()
    looking.stop()
    return stopped.waits


def test_it_looks_more_often_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(["ok", "down", "ok"], 2, monkeypatch) == [2, AWAY_SECONDS, 2]


def test_it_never_looks_less_often_than_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(["ok", "down", "down"], 0.1, monkeypatch) == [0.1, 0.1, 0.1]


def test_it_looks_before_it_asks_redis_anything() -> None:
    loop, let_go = Working(), threading.Event()

    def hanging(_url: str) -> str:
        assert let_go.wait(60)
        return "ok"

    looking = looker(loop, hanging)
    looking.start()
    assert loop.entered.wait(60)
    let_go.set()
    loop.let_go.set()
    looking.stop()


def test_stopping_waits_for_what_a_look_started() -> None:
    loop, order = Working(), []
    looking = looker(loop, lambda _: "ok", look_seconds=600)
    looking.start()
    assert loop.entered.wait(60)

    def stop() -> None:
        looking.stop()
        order.append(loop.ended.is_set())

    stopping = threading.Thread(target=stop)
    stopping.start()
    looking._thread.join()
    loop.let_go.set()
    stopping.join(60)
    assert order == [True], "it stopped while a picture was in work: nobody would commit it"
