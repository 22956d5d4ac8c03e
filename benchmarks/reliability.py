"""`python -m benchmarks.reliability`: how soon Lacuna is itself again, and what its promises cost.

The real programs with the times of the defaults, under the faults of tests/faults/. Only the network is a small one that takes
as long as its picture says. What promises cost is a pair that alternates: ours, and the same programs rewired to do without.
Let the machine do nothing else.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import click

from benchmarks.pairs import alternate
from tests.databases import KINDS
from tests.faults import pictures
from tests.faults.rows.lanes import posted_among
from tests.faults.rows.real import AGAIN_SECONDS, claimed_again, freeze_worker, kill_both, kill_worker
from tests.faults.service import REAL_TIMES, Service, serving

CLIENTS = 4
QUEUED = 300
QUICK = pictures.slow(0.06)  # at least the 50 ms that are promised
NOTHING = pictures.slow(0.0)
DRAINED_SECONDS = 60
POSTED = 100  # in a round of what promises cost
OFF = {
    "no_sync": "files synced",
    "no_leases": "leases kept",
    "no_lasting_commit": "commits synced, in groups",
    "no_sync,no_leases,no_lasting_commit": "all three",
}


@dataclass(frozen=True)
class Figure:
    """What was measured, so often; the median and the worst, and what is promised of the worst."""

    what: str
    unit: str
    measured: list[float]
    promised: str

    def line(self) -> str:
        """As it is printed."""
        median, worst = statistics.median(self.measured), max(self.measured)
        return f"{self.what:<66} {len(self.measured):>3} {median:>8.1f} {worst:>8.1f} {self.unit:<8} {self.promised}"


@dataclass(frozen=True)
class Settled:
    """The options."""

    database: str
    tries: int
    outage_seconds: float
    bulk: int


@click.command()
@click.option("--database", type=click.Choice(KINDS), default="sqlite", show_default=True, help="What promises cost is of SQLite alone.")
@click.option("--tries", default=5, show_default=True, help="Of each fault, and rounds of each pair.")
@click.option("--outage-seconds", default=300.0, show_default=True, help="How long Redis is away.")
@click.option("--bulk", default=1000, show_default=True, help="Jobs among which an interactive one is posted.")
@click.option("--only", multiple=True, type=click.Choice(["again", "outage", "lanes", "cost"]), help="Leave the others out.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there too.")
def main(database: str, tries: int, outage_seconds: float, bulk: int, only: tuple[str, ...], json_path: Path | None) -> None:
    """Measure what faults and promises cost on this machine."""
    settled = Settled(database, tries, outage_seconds, bulk)
    parts: dict[str, Callable[[Settled], Iterator[Figure]]] = {"again": _again, "outage": _outage, "lanes": _lanes, "cost": _cost}
    found = []
    print(f"{'':<66} {'n':>3} {'median':>8} {'worst':>8} {'':<8} promised")
    for name, part in parts.items():
        if name in (only or parts):
            for figure in part(settled):
                found.append(asdict(figure))
                print(figure.line(), flush=True)
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _serving(database: str, wirings: str) -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="lacuna-bench-", ignore_cleanup_errors=True) as folder,
        serving(Path(folder), database, wirings, REAL_TIMES) as service,
    ):
        yield service


def _again(settled: Settled) -> Iterator[Figure]:
    """A worker is struck in the middle of a picture: when another claims it."""
    random = Random(0)  # noqa: S311  # to be repeated
    strikes = {
        "SIGKILL of the worker": kill_worker,
        "SIGKILL of the worker and its guardian": kill_both,
        "SIGSTOP of the worker for good": freeze_worker,
    }
    for what, strike in strikes.items():
        measured = []
        with _serving(settled.database, "small,lean,trapped") as service:
            for _ in range(settled.tries):
                job_id, _, seconds = claimed_again(service, random, strike)
                service.ended([job_id])
                measured.append(seconds)
        yield Figure(f"{what}: its picture claimed again", "s", measured, f"≤ {AGAIN_SECONDS:.0f}")


def _outage(settled: Settled) -> Iterator[Figure]:
    """Redis is away; one picture a second is posted meanwhile, and many at the end."""
    with _serving(settled.database, "small,lean") as service:
        service.kill_redis()
        until = time.monotonic() + settled.outage_seconds
        meanwhile = []
        while time.monotonic() < until:
            meanwhile.append(service.insist(QUICK))
            time.sleep(1.0)
        queued = _posted(service, QUICK, QUEUED)
        rows = service.rows()
        done = [rows[job_id]["finished_at"] - rows[job_id]["created_at"] for job_id in meanwhile if rows[job_id]["finished_at"]]
        left = sum(rows[job_id]["finished_at"] is None for job_id in queued)
        service.start_redis()
        began = time.monotonic()
        service.ended(queued)
        drained = time.monotonic() - began
    yield Figure(f"Redis away for {settled.outage_seconds:.0f} s: {len(done)} of {len(meanwhile)} pictures done meanwhile, each in",
                 "s", [took / 1000 for took in done], "")  # fmt: skip
    yield Figure(f"{QUEUED} posted at its end, {left} not done yet: drained after", "s", [drained], f"≤ {DRAINED_SECONDS}")


def _lanes(settled: Settled) -> Iterator[Figure]:
    """An interactive picture among bulk."""
    between, waited = [], []
    for seed in range(settled.tries):
        with _serving(settled.database, "small,lean") as service:
            _, count, seconds = posted_among(service, settled.bulk, Random(seed))  # noqa: S311  # to be repeated
            between.append(float(count))
            waited.append(seconds)
    what = f"an interactive picture among {settled.bulk} of bulk"
    yield Figure(f"{what}: bulk pictures begun before it", "", between, "0")
    yield Figure(f"{what}: it began after", "s", waited, "")


def _cost(settled: Settled) -> Iterator[Figure]:
    """Milliseconds of a job, from the first post to the last success, of jobs that take no time themselves."""
    for wirings, what in OFF.items():
        with ExitStack() as both:
            ours = both.enter_context(_serving("sqlite", "small,lean"))
            without = both.enter_context(_serving("sqlite", f"small,lean,{wirings}"))
            timed = alternate({"ours": lambda: _done(ours), "without": lambda: _done(without)}, settled.tries)  # noqa: B023
        pairs = zip(timed["ours"].seconds, timed["without"].seconds, strict=True)
        yield Figure(f"a job of no work, {CLIENTS} clients", "ms", [1000 * each / POSTED for each in timed["ours"].seconds], "")
        yield Figure(f"of that, what it costs to have {what}", "ms", [1000 * (mine - theirs) / POSTED for mine, theirs in pairs], "")


def _done(service: Service) -> None:
    service.ended(_posted(service, NOTHING, POSTED))


def _posted(service: Service, picture: bytes, count: int) -> list[str]:
    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(lambda _: service.insist(picture), range(count)))


if __name__ == "__main__":
    main()
