"""A log line can be read by a program, and on a terminal by a person."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared import events


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[io.StringIO], io.StringIO]]:
    """Log to a stream as a program would to its standard error; afterwards everything is as it was."""
    root, ours = logging.getLogger(), logging.getLogger("lacuna")
    before = (root.handlers[:], root.level, ours.level)

    def to(stream: io.StringIO) -> io.StringIO:
        monkeypatch.setattr("sys.stderr", stream)
        events.configure()
        return stream

    yield to
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


Logged = Callable[[io.StringIO], io.StringIO]


def test_a_line_is_one_object_with_time_level_event_and_values(logged: Logged) -> None:
    stream = logged(io.StringIO())
    events.emit("job.failed", job_id="1", code="image_corrupt")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told == {"level": "warning", "event": "job.failed", "job_id": "1", "code": "image_corrupt"}


def test_within_a_context_every_line_of_this_thread_names_its_job(logged: Logged) -> None:
    stream = logged(io.StringIO())
    with events.context(request_id="r", job_id="1"):
        with events.context(job_id="2"):
            events.emit("job.lost")
        other = threading.Thread(target=events.emit, args=["job.lost"])
        other.start()
        other.join()
    events.emit("job.lost")
    told: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line.get("request_id"), line.get("job_id")) for line in told] == [("r", "2"), (None, None), (None, None)]


def test_what_a_library_logs_within_a_context_names_the_job_too(logged: Logged) -> None:
    stream = logged(io.StringIO())
    with events.context(request_id="r", job_id="1"):
        logging.getLogger("some.library").warning("slow")
    told = json.loads(stream.getvalue())
    assert (told["event"], told["request_id"], told["job_id"]) == ("slow", "r", "1")


def test_a_cause_is_logged_with_its_traceback_on_one_line(logged: Logged) -> None:
    stream = logged(io.StringIO())
    try:
        raise ValueError("the cause")
    except ValueError as error:
        events.emit("request.crashed", cause=error)
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: the cause" in json.loads(line)["traceback"]


def test_a_terminal_gets_a_readable_line(logged: Logged) -> None:
    stream = logged(Terminal())
    events.emit("job.claimed", job_id="1", attempts=2)
    assert stream.getvalue().split()[1:] == ["job.claimed", "job_id=1", "attempts=2"]


def test_an_event_that_is_not_in_the_table_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        events.emit("job.vanished")


def test_what_a_stranger_names_cannot_steer_a_terminal(logged: Logged) -> None:
    stream = logged(Terminal())
    events.emit("request.answered", path="/\x1b[2J\n12:00:00  job.failed")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert r"\x1b[2J\n12" in stream.getvalue()
