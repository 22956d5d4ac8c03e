"""The programs under fire: `lacunad up` in the wirings of a row, on either database, with a Redis of the test's own."""

import contextlib
import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import make_url, select

from server import valkey
from shared.database.engine import READ_ONLY, open_database
from shared.database.tables import jobs
from shared.settings import Settings
from tests import databases
from tests.faults import clock, traps, wired
from tests.promises.programs import Home, eventually, free_port

TIMES = {
    "LACUNA_LEASE_SECONDS": "3",
    "LACUNA_RENEW_SECONDS": "1",
    "LACUNA_TICK_SECONDS": "0.5",
    "LACUNA_LOOK_SECONDS": "0.5",
    "LACUNA_SILENCE_SECONDS": "4",
    "LACUNA_GRACE_SECONDS": "2",
    "LACUNA_REQUEST_SECONDS": "8",
    "LACUNA_SWEEP_SECONDS": "8",
}
REAL_TIMES = {name: str(Settings.model_fields[name.removeprefix("LACUNA_").lower()].default) for name in TIMES}
FINAL = ("succeeded", "failed", "canceled")

_numbers = itertools.count()


class Service(Home):
    """A home whose programs are rewired. `names` are wirings, with commas between."""

    def __init__(self, folder: Path, url: str, names: str, settings: dict[str, str]) -> None:
        self.redis_port = free_port()
        there = {"LACUNA_DATABASE_URL": url, "LACUNA_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0"}
        super().__init__(folder, **TIMES | there | settings)
        self.names = names
        self.engine = open_database(url)
        self.redis: subprocess.Popen[bytes] | None = None

    def argv(self, command: str) -> list[str]:
        return wired.command(self.names, "server.cli", command)

    def start_redis(self, *options: str) -> None:
        """Redis, which keeps no file unless `options` say so."""
        folder = self.folder.parent / "redis"
        folder.mkdir(exist_ok=True)
        self.redis = self._start("redis", [*valkey.command(folder), "--port", str(self.redis_port), *options])

    def kill_redis(self) -> None:
        """SIGKILL, and wait for its end."""
        assert self.redis is not None
        self.redis.kill()
        self.redis.wait()

    def part(self, module: str) -> psutil.Process:
        """The process that runs one of our modules: `worker.app worker`, `worker.guardian worker`, `worker.upkeep`, `gunicorn`."""
        found: list[psutil.Process] = eventually(f"{module} runs", lambda: self.processes(f" {module}"))
        return min(found, key=lambda process: process.create_time())  # gunicorn's first is the one that starts the others

    def post(self, picture: bytes, key: str | None = None, **fields: str) -> httpx.Response:
        """One try. Raises `httpx.TransportError`."""
        files = {"image": ("picture.png", picture)}
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.http.post("/v1/restorations", files=files, data=fields, headers=headers)

    def insist(self, picture: bytes, **fields: str) -> str:
        """The job's id, from a client that sends the same request with the same key until it is accepted."""
        key = f"key-{next(_numbers)}-{time.time_ns()}"

        def answered() -> str | None:
            with contextlib.suppress(httpx.TransportError):
                answer = self.post(picture, key, **fields)
                if answer.status_code == 202:
                    return str(answer.json()["id"])
                assert answer.status_code in (409, 503), answer.text  # the first try is still being received, or was
            return None

        job_id: str = eventually("the request is accepted", answered)
        return job_id

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every job's row, by its id."""
        with self.engine.execution_options(**READ_ONLY).connect() as connection:
            return {row.id: dict(row._mapping) for row in connection.execute(select(jobs))}

    def ended(self, job_ids: list[str]) -> None:
        """Return when all of them are final or gone."""
        eventually("every job ends", lambda: all(row["state"] in FINAL for job_id, row in self.rows().items() if job_id in job_ids))

    def said(self, event: str, job_id: str) -> bool:
        """Whether one of the programs of `lacunad up` logged that of that job."""
        lines = (self.folder.parent / "up.log").read_text(encoding="utf-8").splitlines()
        return any(f'"{event}"' in line and job_id in line for line in lines)

    def lay(self, point: str, fault: str = "kill") -> None:
        """See `traps.lay`."""
        traps.lay(self.folder, point, fault)

    def laid(self, point: str) -> bool:
        """Whether nobody fell into that trap yet."""
        return (self.folder / traps.FOLDER / point).exists()

    def sprung(self, point: str) -> None:
        """Return when somebody did."""
        eventually(f"somebody comes to “{point}”", lambda: not self.laid(point))

    def end(self) -> None:
        self.engine.dispose()
        super().end()

    def _start(self, name: str, argv: list[str]) -> "subprocess.Popen[bytes]":
        with (self.folder.parent / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(argv, env=self.environ, stdout=log, stderr=log)
        self.started.append(process)
        return process


def lasting(url: str) -> str:
    """The same database; on PostgreSQL a commit is written before it is answered, as it is by default. Our server puts that off."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.update_query_dict({"options": "-c synchronous_commit=on"})
    return parsed.render_as_string(hide_password=False)


@contextlib.contextmanager
def serving(folder: Path, kind: str, names: str, settings: dict[str, str]) -> Iterator[Service]:
    """All of it, once it answers."""
    home = folder / "h"
    home.mkdir()
    with databases.empty(kind, home) as url:
        service = Service(home, lasting(url), names, settings)
        try:
            if "clocked" in names.split(","):
                clock.wind(service.folder, service.engine)
            service.start_redis()
            service.up()
            service.part("worker.app worker")
            yield service
        finally:
            service.end()
