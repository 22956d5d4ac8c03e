"""A row of the matrix: a fault, and the promises that it puts to the test."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import psutil

from tests.databases import KINDS
from tests.faults import pictures, traps
from tests.faults.checker import SUCCEEDS, Checker, Told
from tests.faults.service import Service, serving

FIRST = {"P1", "P2", "P3", "P6"}  # of the promises: no job is lost, done twice, forgotten or done against its owner's will
PICTURES = [pictures.slow(seconds, seed) for seed, seconds in enumerate((0.0, 0.0, 0.1, 0.3, 0.8))]

Repetition = Callable[[Service, Random], Told]


@dataclass(frozen=True)
class Row:
    """One fault. A repetition of `once` posts, strikes, and tells what must be true after it."""

    fault: str
    promises: tuple[str, ...]
    once: Repetition
    wirings: str = "tiny,trapped"
    settings: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[bytes, ...] = ()  # that it posts beside `PICTURES`
    slow: bool = False  # a repetition takes more than five seconds
    long_only: bool = False  # left out of `make test`, which has a row much like it
    databases: tuple[str, ...] = KINDS  # where there is such a fault; fewer only if `long_only`, for each has its half of the others

    def repetitions(self, most: int) -> int:
        """How often the long form runs it, if a quick row of the first promises is run `most` times."""
        share = (0.2 if self.slow else 1.0) if FIRST & set(self.promises) else (0.1 if self.slow else 0.3)
        return math.ceil(most * share)


@dataclass
class Found:
    """What so many repetitions of a row on one database came to."""

    row: Row
    database: str
    repetitions: int = 0
    complaints: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)  # seconds from the fault to the end of the last job


def run(rows: Sequence[Row], database: str, repetitions: int, seed: int, without: str = "") -> list[Found]:
    """Start everything, repeat each row, and stop. `without` names what is taken away (tests/faults/wirings.py), with commas between.

    The rows must agree on wirings and settings. What is left at the end is the last row's.
    """
    wirings = ",".join(name for name in (rows[0].wirings, without) if name)
    with _folder() as folder, serving(folder, database, wirings, dict(rows[0].settings)) as service:
        checker = Checker(service, undisturbed(service, [*PICTURES, *(picture for row in rows for picture in row.pictures)]))
        found = [_repeated(row, service, checker, database, repetitions, seed) for row in rows]
        found[-1].complaints += checker.at_the_end()
    return found


def _repeated(row: Row, service: Service, checker: Checker, database: str, repetitions: int, seed: int) -> Found:
    found = Found(row, database)
    for number in range(repetitions):
        try:
            told = row.once(service, Random(f"{seed} {number}"))  # noqa: S311  # to be repeated
            traps.lift(service.folder)
            complaints, recovery = checker.after(told)
        except (AssertionError, httpx.TransportError, psutil.Error) as error:  # it went another way: what follows would tell nothing
            found.complaints.append(f"{number}: {error!r}")
            break
        found.complaints += [f"{number}: {complaint}" for complaint in complaints]
        found.recoveries.append(recovery)
        found.repetitions += 1
    return found


def undisturbed(service: Service, some: Iterable[bytes]) -> dict[str, str]:
    """The hash of each of some pictures → that of its result, while nothing happens."""
    service.ended([service.insist(picture) for picture in some])
    return {row["input"]["sha256"]: row["result"]["sha256"] for row in service.rows().values()}


def posted(service: Service, random: Random, count: int = 4) -> list[str]:
    """So many jobs of short and longer pictures."""
    return [service.insist(random.choice(PICTURES)) for _ in range(count)]


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Those that can share a service."""
    alike: dict[tuple[str, tuple[tuple[str, str], ...]], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.wirings, tuple(sorted(row.settings.items()))), []).append(row)
    return list(alike.values())


def all_succeed(job_ids: list[str], attempts: int | None = None) -> Told:
    """The jobs, after so many attempts at most, and that the fault is over now."""
    most = {} if attempts is None else dict.fromkeys(job_ids, attempts)
    return Told(dict.fromkeys(job_ids, SUCCEEDS), time.time(), attempts=most)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lacuna-faults-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
