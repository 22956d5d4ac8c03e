"""`lacunad up`: starts the parts, watches them, starts again what dies or freezes, and leaves nothing behind."""

import fcntl
import http.client
import importlib.util
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from server import keys, valkey
from server.migration import migrate
from shared import children, events, metrics
from shared.bells import reach
from shared.children import Child
from shared.settings import Settings

LOOK_SECONDS = 0.25
PROBE_SECONDS = 2.0
BACK_OFF_SECONDS = (0.0, 1.0, 2.0, 5.0)
SETTLED_SECONDS = 60.0


class CannotStart(Exception):
    """A sentence on why, and what to do."""


@dataclass
class Part:
    """One process to keep alive. With a `probe` it is asked whether it lives; without, it beats by itself."""

    name: str
    argv: list[str]
    probe: Callable[[], bool] | None = None
    prepare: Callable[[], None] | None = None
    child: Child | None = None
    failures: int = 0
    start_at: float = 0.0
    started_at: float = 0.0
    answered_at: float = field(default=0.0)

    def start(self) -> None:
        """Start it now."""
        if self.prepare is not None:
            self.prepare()
        self.child = Child(self.argv)
        self.started_at = self.answered_at = time.monotonic()
        events.emit("part.started", part=self.name, pid=self.child.process.pid)

    def silent_seconds(self) -> float:
        """Since when nothing was heard of it."""
        if self.child is None:
            return 0.0
        self.child.listen(0)
        if self.probe is None:
            return self.child.silent_seconds
        if time.monotonic() - self.answered_at > PROBE_SECONDS and self.probe():
            self.answered_at = time.monotonic()
        return time.monotonic() - self.answered_at

    def end(self) -> None:
        """It died or froze: clear it away, and say when to start it again."""
        if self.child is None:
            return
        self.child.kill()
        events.emit("part.ended", part=self.name, pid=self.child.process.pid, status=self.child.ended())
        self.child.close()
        self.child = None
        lived = time.monotonic() - self.started_at
        self.failures = 0 if lived > SETTLED_SECONDS else min(self.failures + 1, len(BACK_OFF_SECONDS) - 1)
        self.start_at = time.monotonic() + BACK_OFF_SECONDS[self.failures]


def up(settings: Settings, say: Callable[[str], None]) -> None:
    """Run everything until SIGINT or SIGTERM. Raises `CannotStart`."""
    settings.run.mkdir(parents=True, exist_ok=True)
    lock = _lock(settings)
    shutil.rmtree(settings.metrics, ignore_errors=True)  # nobody counts: this is a new start
    metrics.start(settings.metrics)
    _check_port(settings)
    check_executor(settings)
    for sentence in [*migrate(settings), *keys.first(settings)]:
        say(sentence)
    stopping = children.Asked()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    children.hold_lifeline(stopping.set, last_seconds=settings.grace_seconds + 15)
    try:
        parts = _parts(settings)
    except valkey.NoServer as error:
        raise CannotStart(str(error)) from error
    try:
        for part in parts:
            part.start()
        announced = False
        while not stopping.wait(LOOK_SECONDS):
            for part in parts:
                _look_after(part, settings.silence_seconds)
            if not announced and _answers(settings):
                say(f"Lacuna answers at http://{settings.bind} (its API is described at /docs). Ctrl-C stops it.")
                announced = True
    finally:
        say("Stopping: pictures in work are finished or given back.")
        _stop(parts, settings.grace_seconds)
        lock.close()


def _parts(settings: Settings) -> list[Part]:
    parts = [
        Part("api", children.python("gunicorn", "--config", "python:api.serving", "api.wsgi:app"), lambda: _answers(settings)),
        Part("worker", children.python("worker.guardian", "worker")),
        Part("upkeep", children.python("worker.upkeep")),
    ]
    if importlib.util.find_spec("tensorflow") is not None:  # else jobs of the lane train wait for a trainer somewhere else
        parts.append(Part("trainer", children.python("worker.guardian", "trainer")))
    if not settings.redis_url:
        command = children.python("server.leash", *valkey.command(settings.run))
        alive = lambda: reach.state(settings.redis) == "ok"  # noqa: E731  # a sentence, where it is used
        parts.insert(0, Part("valkey", command, alive, lambda: valkey.end_stale(settings.run)))
    return parts


def _look_after(part: Part, silence_seconds: float) -> None:
    now = time.monotonic()
    if part.child is None:
        if now >= part.start_at:
            part.start()
    elif part.child.ended() is not None:
        part.end()
    elif (silent := part.silent_seconds()) > silence_seconds:
        events.emit("part.frozen", part=part.name, silent_s=round(silent, 1))
        part.end()


def _stop(parts: list[Part], grace_seconds: float) -> None:
    """All at once, the API first to hear; each has its grace."""
    for part in reversed(parts):
        if part.child is not None and part.name != "valkey":
            part.child.terminate()
    for part in reversed(parts):
        if part.child is not None:
            end = part.child.stop if part.name == "valkey" else part.child.end  # a second signal would find the first one's handler
            end(grace_seconds + 10)


def _answers(settings: Settings) -> bool:
    host, _, port = settings.bind.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2)
    try:
        connection.request("GET", "/healthz", headers={"Host": settings.hosts[0]})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _lock(settings: Settings) -> IO[str]:
    file = (settings.run / "up.lock").open("w", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise CannotStart(f"Lacuna already runs on {settings.home}. Stop it first, or set LACUNA_HOME to another folder.") from error
    return file


def _check_port(settings: Settings) -> None:
    host, _, port = settings.bind.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise CannotStart(f"Port {port} on {host} is taken. Stop what uses it, or set LACUNA_BIND to another.") from error


def check_executor(settings: Settings) -> None:
    """Raises `CannotStart` if what the setting asks for is not installed. A worker would find out too, at each of its starts."""
    if settings.executor != "auto" and importlib.util.find_spec(settings.executor) is None:
        raise CannotStart(f"LACUNA_EXECUTOR={settings.executor}, and that is not installed: leave it at auto, or see docs/operations.md.")
