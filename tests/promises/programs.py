"""The real programs, started as a user starts them, on a home of their own and with times scaled down."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

PATIENCE_SECONDS = 180.0  # until a test gives up; never what it measures
TIMES = {
    "LACUNA_LEASE_SECONDS": "9",
    "LACUNA_RENEW_SECONDS": "3",
    "LACUNA_TICK_SECONDS": "0.5",
    "LACUNA_LOOK_SECONDS": "0.5",
    "LACUNA_MIN_FREE": "0",
}


def free_port() -> int:
    """One that nobody has; and below those that the system gives to clients, one of which could have it until a program listens."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311  # nobody is to be kept from guessing it
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def eventually(what: str, look: Callable[[], Any]) -> Any:
    """The first true answer of `look`; fails with `what` when patience is over."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if answer := look():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"it never happened that {what}")


class Home:
    """A home and the programs that run on it. Everything is ended by its id when the test is over."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("LACUNA_") or name == "LACUNA_EXECUTOR"}
        self.environ |= TIMES | {"LACUNA_HOME": str(folder), "LACUNA_BIND": self.address} | settings
        self.started: list[subprocess.Popen[bytes]] = []
        self.http = httpx.Client(base_url=f"http://{self.address}", timeout=90)

    def lacunad(self, command: str) -> "subprocess.Popen[bytes]":
        """Start `lacunad COMMAND`; its output goes to a file that a failing test shows."""
        with (self.folder.parent / f"{command}.log").open("ab") as log:
            process = subprocess.Popen(self.argv(command), env=self.environ, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def argv(self, command: str) -> list[str]:
        """What `lacunad COMMAND` is."""
        return [sys.executable, "-m", "server.cli", command]

    def up(self) -> "subprocess.Popen[bytes]":
        """`lacunad up`, once it answers."""
        process = self.lacunad("up")
        self.answers()
        return process

    def answers(self) -> None:
        """Return when the API answers."""
        eventually("the API answers", self.ready)

    def processes(self, of: str = "") -> list[psutil.Process]:
        """Every living process of this home (by its environment) whose command line has `of`."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("LACUNA_HOME") == str(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE and of in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def worker(self) -> psutil.Process:
        """The worker process that claims."""
        found: list[psutil.Process] = eventually("a worker runs", lambda: self.processes("worker.app worker"))
        return found[0]

    def send(self, path: Path, **headers: str) -> httpx.Response:
        """POST a picture."""
        with path.open("rb") as file:
            return self.http.post("/v1/restorations", files={"image": (path.name, file)}, headers=headers)

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is."""
        answer: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").json()
        return answer

    def final(self, job_id: str) -> dict[str, Any]:
        """The job when it is over."""
        final = ("succeeded", "failed", "canceled")
        answer: dict[str, Any] = eventually(f"job {job_id} ends", lambda: found if (found := self.job(job_id))["state"] in final else None)
        return answer

    def ready(self) -> bool:
        """Whether the API answers now."""
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/readyz").status_code == 200
        return False

    def end(self) -> None:
        """End everything that this home started."""
        self.http.close()
        for process in self.started:
            if process.poll() is None:
                process.terminate()
        for process in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(40)
        for left in self.processes():
            with contextlib.suppress(psutil.Error):
                left.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def home(folder: Path, **settings: str) -> Iterator[Home]:
    """A home that is cleared away, whatever happens."""
    made = Home(folder / "h", **settings)
    try:
        yield made
    finally:
        made.end()
