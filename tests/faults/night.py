"""`make night`: a folder of real photos goes through while client, API, worker and Redis are killed at random.

What comes out must be what an undisturbed run leaves: every file bit for bit, the manifest row for row, and nothing else.
No part is replaced; leases and the like are shorter.
"""

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import click
import psutil
from sqlalchemy import Engine, func, select

from client import record
from shared.database.engine import READ_ONLY, open_database
from shared.database.tables import jobs
from shared.folders import names
from shared.jobs.job import FINAL
from tests.faults import tree, wired
from tests.faults.service import TIMES
from tests.promises.programs import Home, eventually

CLIENT = "client"
PARTS = {  # what the command lines of their processes have, of which one is chosen
    "API": (" gunicorn --config ",),
    "worker": (" worker.guardian worker", " worker.app worker"),
    "Redis": (" server.leash ",),  # which holds it: Redis writes its title over its environment, by which ours are known
}
VICTIMS = (CLIENT, *PARTS)
AWAY = 3  # the exit status of a client that no server answered
LEFT = 12  # jobs have not ended when the last one is killed
COMPARED = ("state", "sha256_in", "sha256_out", "type", "error")  # of a row of a manifest
SHOWN = 20  # differences

Start = Callable[[Home, Path, Path], "subprocess.Popen[bytes]"]  # begins a run, or goes on with one: a program that ends with it
Strike = tuple[int, str]  # when so many jobs have ended: who is killed


def lacuna_in_place(lacuna: Home, source: Path, out: Path) -> "subprocess.Popen[bytes]":
    """The same for folders of the server's own machine: the client only looks on."""
    return lacuna_folder(lacuna, source, out, "--in-place")


@dataclass
class Came:
    """What a run came to."""

    status: int  # of the last client
    seconds: float
    tree: Mapping[str, str]  # below OUT: path → sha256
    fates: Mapping[str, str]  # path → what the last client said of it: restored, or the code of its error
    rows: Mapping[str, Mapping[str, Any]]  # path → its row in the manifests
    ended: int  # jobs
    twice: Sequence[str]  # paths that were restored more than once
    kills: Counter[str] = field(default_factory=Counter)
    missed: Sequence[Strike] = ()  # that came too late


class Hurried(Home):
    """A home in which nobody waits a minute for a request whose API died: it is two seconds there."""

    def argv(self, command: str) -> list[str]:
        return wired.command("hurried", "server.cli", command)


def lacuna_folder(lacuna: Home, source: Path, out: Path, *how: str) -> "subprocess.Popen[bytes]":
    """The command, as a user starts it, again and again. What the last one said lies beside `out`."""
    program = [sys.executable, "-c", "from client.cli import main; main()", "--server", f"http://{lacuna.address}"]
    with (out.parent / "said").open("wb") as said, (out.parent / "client.log").open("ab") as log:
        process = subprocess.Popen([*program, "folder", str(source), str(out), "--json", *how], env=lacuna.environ, stdout=said, stderr=log)
    lacuna.started.append(process)
    return process


def run(folder: Path, source: Path, of: type[Home], start: Start, strikes: Sequence[Strike] = (), random: Random | None = None) -> Came:
    """All of `source` through a service of its own in `folder`, while that happens."""
    (folder / "out").mkdir(parents=True)
    lacuna = of(folder / "h", LACUNA_ROOTS=f"read:{source},write:{folder / 'out'}", **TIMES)
    with _database(lacuna) as engine:
        lacuna.up()
        began = time.monotonic()
        ran = _Running(lacuna, engine, lambda: start(lacuna, source, folder / "out"))
        missed = [strike for strike in strikes if not ran.struck(strike, random or Random(0))]  # noqa: S311
        status = ran.ended()
        rows = _manifest(lacuna)
        return Came(
            status=status,
            seconds=time.monotonic() - began,
            tree=contents(folder / "out"),
            fates=_fates(folder / "said") or _fates_of(rows),
            rows=rows,
            ended=_count_ended(engine),
            twice=_twice(engine),
            kills=ran.kills,
            missed=missed,
        )


class _Running:
    """A run under way, whose client is started again whenever it is gone too early."""

    def __init__(self, lacuna: Home, engine: Engine, start: Callable[[], "subprocess.Popen[bytes]"]) -> None:
        self.kills: Counter[str] = Counter()
        self._lacuna, self._engine, self._start = lacuna, engine, start
        self._client = start()

    def struck(self, strike: Strike, random: Random) -> bool:
        """Kill when it is time. Whether the run had not ended before."""
        at, victim = strike
        eventually(f"{at} jobs end", partial(self._came_to, at))
        if self._is_over():
            return False
        if victim == CLIENT:
            self._client.kill()
            self._client.wait()
            self._client = self._start()
        elif not _killed(self._lacuna, victim, random):
            with self._waiting():
                eventually(f"the {victim} is killed", lambda: _killed(self._lacuna, victim, random))
        self.kills[victim] += 1
        return True

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """The client stands still: else it could end before a part is back that died so often that it is given time."""
        self._client.send_signal(signal.SIGSTOP)
        yield
        self._client.send_signal(signal.SIGCONT)

    def ended(self) -> int:
        """The exit status, at the end."""
        while not self._is_over():
            eventually("a job or the client ends", partial(self._came_to, _count_ended(self._engine) + 1))
        return self._client.wait()

    def _came_to(self, ended: int) -> bool:
        """Whether so many jobs have ended; or the client did."""
        return self._is_over() or _count_ended(self._engine) >= ended

    def _is_over(self) -> bool:
        if self._client.poll() == AWAY:  # it was started while the API was dead; so does a user, and starts it again
            self._lacuna.answers()
            self._client = self._start()
        return self._client.poll() is not None


def _killed(lacuna: Home, victim: str, random: Random) -> psutil.Process | None:
    """SIGKILL for one of its processes; None if it was being started again."""
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        found = [process for of in PARTS[victim] for process in lacuna.processes(of)]
        found = [child for leash in found for child in leash.children()] if victim == "Redis" else found
        chosen = random.choice(sorted(found, key=lambda process: process.create_time()))
        chosen.kill()
        return chosen
    return None


def strikes(ended: int, kills: int, random: Random) -> list[Strike]:
    """Everybody so often, each time at a random moment of another stretch of a run in which so many jobs end."""
    stretch = (ended - LEFT) / kills
    return sorted((round((number + random.random()) * stretch), victim) for victim in VICTIMS for number in range(kills))


# -- what is there ---------------------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder but the client's record: path → sha256."""
    paths = [path for path in folder.rglob("*") if not path.is_dir() and path.name != record.NAME]
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}


def _sha256(path: Path) -> str:
    return f"link to {path.readlink()}" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()


def _times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def _fates(said: Path) -> dict[str, str]:
    """Whether an earlier run of the client restored a file or this one, it is restored."""
    lines = [json.loads(line) for line in said.read_text(encoding="utf-8").splitlines() if line.startswith('{"path"')]
    fates = {line["path"]: line["error"]["code"] if line["error"] else line["fate"] for line in lines}
    return {path: "restored" if fate == "kept" else fate for path, fate in fates.items()}


def _fates_of(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """As the manifest has it: a client that only looked on tells of no single file."""
    return {path: row["error"] or "restored" for path, row in rows.items() if row["state"] != "ignored"}


def _manifest(lacuna: Home) -> dict[str, dict[str, Any]]:
    """Of all batches, once they have ended; a path's last row. A batch that nothing was sent into is of a client killed in between."""

    def ended() -> list[Any]:
        batches = lacuna.http.get("/v1/batches", params={"limit": 200}).json()["items"]
        used = [batch for batch in batches if batch["counts"]["total"]]
        return used if all(batch["finished_at"] for batch in used) else []

    rows: dict[str, dict[str, Any]] = {}
    for batch in reversed(eventually("the batch ends", ended)):
        lines = lacuna.http.get(batch["links"]["manifest"]).text.splitlines()
        told = {row["path"]: row for row in map(json.loads, lines)}
        rows |= {path: row for path, row in told.items() if row["notes"] != ["done_before"]}  # a batch before did that
    return rows


def _count_ended(engine: Engine) -> int:
    with engine.execution_options(**READ_ONLY).connect() as connection:
        return int(connection.scalar(select(func.count()).where(jobs.c.state.in_(FINAL))) or 0)


def _twice(engine: Engine) -> list[str]:
    query = select(jobs.c.path).where(jobs.c.state == "succeeded").group_by(jobs.c.path).having(func.count() > 1)
    with engine.execution_options(**READ_ONLY).connect() as connection:
        return list(connection.scalars(query))


@contextlib.contextmanager
def _database(lacuna: Home) -> Iterator[Engine]:
    """Of a home, which is ended with it."""
    engine = open_database(f"sqlite:///{lacuna.folder / 'lacuna.db'}")
    try:
        yield engine
    finally:
        engine.dispose()
        lacuna.end()


# -- what differs ----------------------------------------------------------------------------------------------------------------------


def differences(calm: Came, night: Came, pictures: frozenset[str], broken: frozenset[str]) -> list[str]:
    """Sentences; none if nothing went wrong in either."""
    found = [*_of_itself("the undisturbed run", calm, pictures, broken), *_of_itself("the disturbed run", night, pictures, broken)]
    found += [f"the {victim} was to be killed when {at} jobs had ended, and the run was over" for at, victim in night.missed]
    if calm.status != night.status:
        found.append(f"the exit status is {night.status}, not {calm.status}")
    found += _between("the tree", calm.tree, night.tree)
    found += _between("what the client said", calm.fates, night.fates)
    found += _between("the manifest", *({path: _row(row) for path, row in came.rows.items()} for came in (calm, night)))
    return found


def _of_itself(what: str, came: Came, pictures: frozenset[str], broken: frozenset[str]) -> list[str]:
    """Every file restored once, or told to have failed; and what the manifest says of it is true."""
    whole = pictures - broken
    failed = frozenset(path for path, fate in came.fates.items() if fate != "restored")
    found = [f"{what} ended with {came.status}"] if came.status != bool(broken) else []
    found += [f"{what} left {path!a}" for path in came.tree.keys() - whole]
    found += [f"{what} did not restore {path!a}: {came.fates.get(path, 'it was not told of')}" for path in whole - came.tree.keys()]
    found += [f"{what} did not tell that {path!a} is broken" for path in broken if not failed & {path, names.told(path)}]
    found += [f"{what} restored {path!a} more than once" for path in came.twice]
    for path, sha256 in came.tree.items():
        row = came.rows.get(_told(path))
        if row is None or (row["state"], row["sha256_out"]) != ("succeeded", sha256):
            found.append(f"{what} has {path!a}, and its manifest says {row and _row(row)}")
    return found


def _between(what: str, calm: Mapping[str, Any], night: Mapping[str, Any]) -> list[str]:
    apart = sorted(path for path in calm.keys() | night.keys() if calm.get(path) != night.get(path))
    return [f"{what}, {path!a}: {night.get(path, 'nothing')}, not {calm.get(path, 'nothing')}" for path in apart]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in COMPARED}


def _told(path: str) -> str:
    """As the server is told of it: a name that is no UTF-8 cannot be said."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


# -- both runs -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Night:
    """Both runs over one tree, and what differs."""

    calm: Came
    night: Came
    differences: Sequence[str]


def both(folder: Path, files: int, broken: int, kills: int, seed: int, of: type[Home] = Home, start: Start = lacuna_folder) -> Night:
    """A tree of so many files goes through twice, the second time with so many kills of each."""
    source, random = folder / "in", Random(f"night {seed}")  # noqa: S311  # to be repeated
    spoiled = tree.plant(source, files, broken, seed)
    pictures = frozenset(contents(source)) - {*tree.IGNORED, tree.LINK}
    before = contents(source), _times(source)
    calm = run(folder / "calm", source, of, start)
    night = run(folder / "night", source, of, start, strikes(calm.ended, kills, random), random)
    found = differences(calm, night, pictures, spoiled)
    if (contents(source), _times(source)) != before:
        found.append("the inputs were written to")
    return Night(calm, night, found)


@click.command()
@click.option("--files", default=500, show_default=True)
@click.option("--broken", default=20, show_default=True, help="How many of them cannot be restored.")
@click.option("--kills", default=5, show_default=True, help="Of client, API, worker and Redis each.")
@click.option("--seed", default=0, show_default=True)
@click.option("--in-place", is_flag=True, help="The server reads the folder itself, and the client looks on.")
@click.option("--keep", type=click.Path(path_type=Path, exists=False), help="Where all of it is made, and left to look at.")
def main(files: int, broken: int, kills: int, seed: int, in_place: bool, keep: Path | None) -> None:
    """Send a folder of photos through while everything is killed, and compare."""
    if not tree.photos():
        raise click.UsageError(f"There are no photos in {tree.DATA}: name the folder of pictures with DATA.")
    with tempfile.TemporaryDirectory(prefix="lacuna-night-") if keep is None else contextlib.nullcontext(str(keep)) as folder:
        Path(folder).mkdir(exist_ok=True)
        found = both(Path(folder), files, broken, kills, seed, start=lacuna_in_place if in_place else lacuna_folder)
    _show(found)
    sys.exit(bool(found.differences))


def _show(found: Night) -> None:
    print(f"{'':<14}{'undisturbed':>12}{'disturbed':>12}")
    for what, figure in FIGURES.items():
        print(f"{what:<14}{figure(found.calm):>12}{figure(found.night):>12}")
    print(f"\n{len(found.differences)} differences")
    for difference in found.differences[:SHOWN]:
        print(f"  {difference}")


FIGURES: dict[str, Callable[[Came], str | int]] = {
    "seconds": lambda came: f"{came.seconds:.0f}",
    "outputs": lambda came: len(came.tree),
    "failed": lambda came: sum(fate != "restored" for fate in came.fates.values()),
    "manifest rows": lambda came: len(came.rows),
    "exit status": lambda came: came.status,
    **{f"{victim} killed": lambda came, victim=victim: came.kills[victim] for victim in VICTIMS},  # type: ignore[misc]
}


if __name__ == "__main__":
    main()
