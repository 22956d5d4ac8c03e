"""A home of its own for a benchmark, with jobs in its database and programs started on it."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
from sqlalchemy import insert, select
from uuid_utils import uuid7

from benchmarks import load
from benchmarks.script import NETWORK
from server import valkey
from server.migration import migrate
from shared import children
from shared.blobs.local import LocalBlobs
from shared.database.engine import open_database
from shared.database.tables import jobs as jobs_table
from shared.jobs.job import Lane
from shared.jobs.store import Jobs
from shared.models.store import Models
from shared.settings import Settings
from tests.promises import wiring
from tests.promises.programs import free_port

NOWHERE = "redis+socket:///nowhere/valkey.sock?virtual_host=0"
FILL = 10_000  # rows in one statement


class Home:
    """A migrated home; what it started is ended with it. `redis_url` "" is the embedded server, for who starts it."""

    def __init__(self, redis_url: str = NOWHERE, **said: str) -> None:
        """`said` are further settings by their names, for the programs that are started."""
        self._folder = tempfile.TemporaryDirectory(prefix="lacuna-bench-")
        self.settings = Settings(home=Path(self._folder.name), redis_url=redis_url, bind=f"127.0.0.1:{free_port()}", min_free=0)
        migrate(self.settings)
        self._engine = open_database(self.settings.database)
        Models(self._engine).set_default("local", "denoise", "{}@{}".format(*NETWORK))
        self.jobs = Jobs(self._engine, self.settings.lease_seconds)
        self.blobs = LocalBlobs(self.settings.blobs)
        self._log = Path(self._folder.name) / "log"
        self._said = said
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Home":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._started:
            process.terminate()
            process.wait()
        self._folder.cleanup()

    def submit(self, height: int, width: int) -> str:
        """What the API leaves behind for a picture of noise; returns the job's id."""
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return wiring.submit(self, pixels).id

    def put(self, data: bytes, width: int, height: int, lane: Lane = Lane.INTERACTIVE) -> str:
        """The same for a file of any format."""
        draft = self.blobs.draft()
        draft.write(data)
        return wiring.submit_bytes(self, draft, width, height, lane=lane).id

    def fill(self, count: int, differing: Callable[[int], dict[str, Any]] = lambda _: {}) -> str:
        """Copy the one job that is there until there are `count`, each `differing` by its number; returns the id of the last in turn."""
        with self._engine.connect() as connection:
            first = dict(connection.execute(select(jobs_table)).one()._mapping)
        last = first["id"]
        for start in range(1, count, FILL):
            numbers = range(start, min(count, start + FILL))
            rows = [first | {"id": str(uuid7()), "turn": first["turn"] + number} | differing(number) for number in numbers]
            with self._engine.begin() as connection:
                connection.execute(insert(jobs_table), rows)
            last = rows[-1]["id"]
        return str(last)

    def start(self, module: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """A program of ours, on this home."""
        said = {name: str(getattr(self.settings, name)) for name in ("home", "redis_url", "bind", "min_free")} | self._said
        environ = {f"LACUNA_{name.upper()}": value for name, value in said.items()}
        with self._log.open("ab") as log:
            self._started.append(
                subprocess.Popen(children.python(module, *arguments), env={**os.environ, **environ}, stdout=log, stderr=log)
            )
        return self._started[-1]

    def serve(self, app: str = "api.wsgi:app") -> str:
        """An application under the API's gunicorn, and the embedded server for its bells; returns its address once it answers."""
        self.settings.run.mkdir(exist_ok=True)
        self.start("server.leash", *valkey.command(self.settings.run))
        self.start("gunicorn", "--config", "python:api.serving", app)
        load.until_answered(self.settings.bind)
        return self.settings.bind

    def up(self) -> str:
        """All of Lacuna, as a user starts it; returns its address once it answers."""
        self.start("server.cli", "up")
        load.until_answered(self.settings.bind)
        return self.settings.bind

    def wait(self, job_id: str) -> None:
        """Return when the job has ended. Raises `RuntimeError` if it did not succeed."""
        while not self.succeeded(job_id):
            time.sleep(0.02)

    def succeeded(self, job_id: str) -> bool:
        """Whether the job has ended. Raises `RuntimeError` if it did not succeed."""
        job = self.jobs.get(job_id)
        if job is None or not job.final:
            return False
        if job.state != "succeeded":
            raise RuntimeError(f"the job ended as {job.state}: {job.error}")
        return True

    def logged(self, event: str) -> float:
        """Seconds since 1970 at which the event was first logged."""
        for line in self._log.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and (said := json.loads(line))["event"] == event:
                return datetime.fromisoformat(said["time"]).timestamp()
        raise LookupError(f"{event} was not logged:\n{self._log.read_text(encoding='utf-8')}")

    def peak_mb(self, *words: str) -> float:
        """The most that one of the processes has had in memory which were started, or which those started, with these arguments."""
        started = [psutil.Process(process.pid) for process in self._started]
        below = [child for process in started for child in process.children(recursive=True)]
        return max(peak_mb(process) for process in [*started, *below] if set(words) <= set(process.cmdline()))

    def memory_mb(self, process: "subprocess.Popen[bytes]") -> float:
        """What the process has in memory now."""
        return float(psutil.Process(process.pid).memory_info().rss) / 1e6


def peak_mb(process: psutil.Process) -> float:
    """The most that it has had in memory."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
