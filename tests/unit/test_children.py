"""A child cannot outlive its parent, and is heard as long as it lives."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from shared import children
from shared.children import Child
from tests.promises.programs import eventually

Program = Callable[[str], Child]


@pytest.fixture
def child_of() -> Iterator[Program]:
    started: list[Child] = []

    def start(program: str) -> Child:
        started.append(Child([sys.executable, "-c", textwrap.dedent(program)]))
        return started[-1]

    yield start
    for child in started:
        child.kill()


def heard(child: Child) -> dict[str, Any]:
    """What its first beat says."""

    def listen() -> dict[str, Any]:
        child.listen(1)
        return child.last_beat

    beat: dict[str, Any] = eventually("it beats", listen)
    return beat


def gone(process: psutil.Process) -> bool:
    """Whether it has ended, reaped or not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two looks
        return True


SLEEPER = "from shared import children; import time; children.hold_lifeline(); children.beat(); time.sleep(600)"


def test_a_beat_carries_what_the_child_says_and_breaks_the_silence(child_of: Program) -> None:
    child = child_of("from shared import children; import time; children.beat(lambda: {'rounds': 7}); time.sleep(600)")
    assert heard(child) == {"rounds": 7}


def test_a_beat_that_arrives_in_two_halves_counts_when_it_is_whole(child_of: Program) -> None:
    child = child_of("import time; time.sleep(600)")
    hears, speaks = os.pipe()
    os.close(child._beat)
    os.set_blocking(hears, False)
    child._beat, heard_at = hears, child._heard_at
    os.write(speaks, b'{"rounds": 6}\n{"rounds"')
    child.listen(60)
    assert child.last_beat == {"rounds": 6}
    assert child._heard_at > heard_at, "it is heard, and would still be killed for its silence"
    os.write(speaks, b": 7}\n")
    child.listen(60)
    assert child.last_beat == {"rounds": 7}
    os.close(speaks)


def test_a_child_that_is_deaf_to_the_end_of_its_parent_is_ended_a_little_later(child_of: Program) -> None:
    child = child_of(
        """
        import signal, time
        from shared import children
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        children.hold_lifeline(last_seconds=0.01)
        children.beat(lambda: {"deaf": True})
        time.sleep(600)
        """
    )
    assert heard(child)
    os.close(child._lifeline)  # what the system does when the parent dies
    eventually("it has ended", lambda: child.ended() is not None)
    assert child.ended() == -9


def test_a_child_that_ends_is_seen_with_its_status(child_of: Program) -> None:
    child = child_of("raise SystemExit(3)")
    child.listen(60)  # returns when the pipe closes
    eventually("it has ended", lambda: child.ended() is not None)
    assert child.ended() == 3


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", f"from shared.children import Child; import sys; c = Child([sys.executable, '-c', {SLEEPER!r}]); "
         "c.listen(60); print(c.process.pid, flush=True); input()"],
        stdout=subprocess.PIPE, stdin=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    eventually("the child has ended", lambda: gone(child))


def test_a_child_may_say_what_it_does_when_its_parent_is_gone(child_of: Program) -> None:
    child = child_of(
        """
        import os, time
        from shared import children
        children.hold_lifeline(lambda: os._exit(7))
        time.sleep(600)
        """
    )
    child.close()
    assert child.process.wait(60) == 7


def test_a_child_that_does_not_listen_is_killed_after_its_grace(child_of: Program) -> None:
    child = child_of(
        """
        import signal, time
        from shared import children
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        children.beat(lambda: {"deaf": True})
        time.sleep(600)
        """
    )
    assert heard(child)
    child.stop(0.1)
    assert child.ended() == -9


def test_killing_a_child_kills_what_it_started(child_of: Program) -> None:
    child = child_of(
        """
        import subprocess, sys, time
        from shared import children
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        children.beat(lambda: {"pid": grandchild.pid})
        time.sleep(600)
        """
    )
    grandchild = psutil.Process(heard(child)["pid"])
    child.kill()
    eventually("the grandchild is gone", lambda: gone(grandchild))


def test_a_program_that_was_started_by_hand_follows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(children.LIFELINE, raising=False)
    monkeypatch.delenv(children.BEAT, raising=False)
    children.hold_lifeline()
    children.beat()


def test_however_many_signals_ask_for_the_same_nobody_waits_for_ever(child_of: Program) -> None:
    child = child_of(
        """
        import signal, time
        from shared import children
        stopping = children.Asked()
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        children.beat(lambda: {"waits": True})
        raise SystemExit(0 if stopping.wait(60) else 1)
        """
    )
    assert heard(child) == {"waits": True}
    for _ in range(50):
        child.terminate()
    assert child.process.wait(30) == 0


def test_what_was_asked_to_end_is_not_asked_again(child_of: Program) -> None:
    child = child_of(
        """
        import signal, time
        from shared import children
        heard = []
        signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
        children.beat(lambda: {"heard": len(heard)})
        while not heard:
            time.sleep(0.01)
        time.sleep(1.5)
        """
    )
    assert heard(child) == {"heard": 0}
    child.terminate()
    child.end(30)
    assert child.last_beat == {"heard": 1}
