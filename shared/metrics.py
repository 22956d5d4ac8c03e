"""Metrics, made from the named events of shared/events.py. Each process counts into files that /metrics adds up.

The files lie under the home, which all parts share. A process that ends leaves its counts: they are the service's, not its own.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, mmap_dict, multiprocess, values
from prometheus_client.exposition import generate_latest

from shared import events

FILE_BYTES = 65_536  # of a file of counts at first; it doubles when it is full
KEPT_SECONDS = 7 * 24 * 3600.0  # what a process counted that has not counted for so long is forgotten
REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
WRITES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
WAITS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200)
PACES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)


HOST = socket.gethostname()  # containers that share a home may have the same process ids


class _Allocated(mmap_dict.MmapedDict):
    """A file of counts that has its space on the disk before it is mapped.

    Prometheus' own files are sparse: where the disk is full, writing to one ends the process by SIGBUS.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            try:
                with Path(filename).open("ab") as file:
                    file.write(bytes(FILE_BYTES - file.tell()) if file.tell() < FILE_BYTES else b"")
            except OSError:
                Path(filename).unlink()
                raise
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]  # it has no types

    def _init_value(self, key: str) -> None:
        if self._used + 2 * len(key.encode()) + 64 > self._capacity:
            self._f.write(bytes(self._capacity))  # at the end: that is where it grows
            self._f.flush()
        super()._init_value(key)  # type: ignore[no-untyped-call]


class _Instruments:
    """What is counted. The registry is a formality: what is shown is read from the files."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.events = Counter("lacuna_events", "events, by name", ["event"], registry=registry)
        self.requests = Counter("lacuna_requests", "answers", ["method", "route", "status"], registry=registry)
        self.request = Histogram("lacuna_request_seconds", "time to an answer", ["route"], registry=registry, buckets=REQUESTS)
        self.wait = Histogram("lacuna_wait_seconds", "from accept to the first claim", ["lane"], registry=registry, buckets=WAITS)
        self.claim = Histogram("lacuna_claim_seconds", "a claim's transaction", registry=registry, buckets=WRITES)
        self.commit = Histogram("lacuna_commit_seconds", "syncing and committing a group", registry=registry, buckets=WRITES)
        self.pace = Histogram(
            "lacuna_seconds_per_megapixel", "an attempt's time, by size", ["model", "executor"], registry=registry, buckets=PACES
        )
        self.succeeded = Counter("lacuna_jobs_succeeded", "jobs that succeeded", ["model"], registry=registry)
        self.failed = Counter("lacuna_jobs_failed", "jobs that failed, by code", ["code"], registry=registry)
        self.retried = Counter("lacuna_attempts_retried", "attempts that failed and were made again, by code", ["code"], registry=registry)

    def observe(self, event: str, told: Mapping[str, Any]) -> None:
        """Count an event; not where there is no space to: that must cost nothing but the count."""
        with contextlib.suppress(OSError):
            self.events.labels(event).inc()
            if count := _COUNTED.get(event):
                count(self, told)


def _answered(on: _Instruments, told: Mapping[str, Any]) -> None:
    on.requests.labels(told["method"], told["route"], told["status"]).inc()
    on.request.labels(told["route"]).observe(told["ms"] / 1000)


def _claimed(on: _Instruments, told: Mapping[str, Any]) -> None:
    on.claim.observe(told["ms"] / 1000)
    if told["attempts"] == 1:
        on.wait.labels(told["lane"]).observe(told["waited_ms"] / 1000)


def _succeeded(on: _Instruments, told: Mapping[str, Any]) -> None:
    on.succeeded.labels(told["model"]).inc()
    if told["executor"] is not None:
        on.pace.labels(told["model"], told["executor"]).observe(told["seconds"] / told["pixels"] * 1e6)


_COUNTED: dict[str, Callable[[_Instruments, Mapping[str, Any]], None]] = {
    "request.answered": _answered,
    "job.claimed": _claimed,
    "job.succeeded": _succeeded,
    "job.failed": lambda on, told: on.failed.labels(told["code"]).inc(),
    "job.retried": lambda on, told: on.retried.labels(told["code"]).inc(),
    "group.committed": lambda on, told: on.commit.observe(told["ms"] / 1000),
}


def start(folder: Path) -> None:
    """Count the events of this process into `folder` from now on; not if there is no space for that."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.MmapedDict = _Allocated  # type: ignore[attr-defined]
    values.ValueClass = values.MultiProcessValue(lambda: f"{HOST}-{os.getpid()}")  # type: ignore[no-untyped-call]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        events.listen(_Instruments().observe)
    except OSError as error:
        events.emit("metrics.failed", reason=str(error))


def collect(folder: Path, *more: Any) -> bytes:
    """What all processes counted, and what `more` collectors know, in Prometheus' text format."""
    registry = CollectorRegistry()
    if folder.is_dir():
        multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]  # it has no types
    for collector in more:
        registry.register(collector)
    return generate_latest(registry)


def forget(folder: Path, kept_seconds: float = KEPT_SECONDS) -> None:
    """Remove what was counted by processes that are long gone."""
    for file in folder.glob("*.db"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > kept_seconds and not _lives(file):
                file.unlink()


def _lives(file: Path) -> bool:
    """Whether the process that counts into it runs on this machine: it may have had nothing to count for long."""
    host, _, process = file.stem.partition("_")[2].rpartition("-")
    if host != HOST:
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
