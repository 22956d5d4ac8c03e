"""`python -m benchmarks.bulk`: what it costs to have many pictures restored, and how much memory that takes.

Speed is a pair that alternates: the service, and a plain script that reads, restores and writes the same files one after the
other, by the same functions. Memory is the most that a program had, with few pictures and with many. Let the machine do nothing else.
"""

import base64
import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from benchmarks import load
from benchmarks.home import Home, peak_mb
from benchmarks.modes import MODES, Mode, Picture, mixed
from benchmarks.pairs import Row, compared, shown
from benchmarks.script import HEIGHT, WIDTH, photo_files, png, restore_in_turn, shipped_network, small_files

FINAL = {"succeeded", "completed_with_errors", "failed", "canceled"}
POLL_S = 0.2
PAGE = 500
GETS = 50  # of one page in a round
PHASE = 200  # pictures among which are the largest and every mode
GROWTH = 1.1
SAMPLE_S = 0.05
LARGE_SIDE, LARGE_MB = 10_000, 3_000


@dataclass(frozen=True)
class Sizes:
    """The options: how much of everything."""

    rounds: int
    photos: int
    small: int
    items: int
    files: int
    restores: int
    in_place: bool


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--photos", default=300, show_default=True, help=f"Of {WIDTH} × {HEIGHT}.")
@click.option("--small", default=3_000, show_default=True, help="Pictures of 32 × 32.")
@click.option("--items", default=100_000, show_default=True, help="Of a batch that is read in pages.")
@click.option("--files", default=1_000, show_default=True, help="Of a folder, and a hundred times as many, for memory.")
@click.option("--restores", default=2_000, show_default=True, help="Of all sizes and modes by one worker, for memory.")
@click.option("--in-place", is_flag=True, help="Have the server read the folder, instead of sending each picture.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["photos", "small", "pages", "eta", "memory", "restores", "large"]),
    help="Leave the others out.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures of the pairs there too.")
def main(only: tuple[str, ...], json_path: Path | None, **sizes: Any) -> None:
    """Measure bulk on this machine."""
    logging.getLogger("lacuna").setLevel(logging.ERROR)  # that nobody answers our bells is no news
    pairs: dict[str, Callable[[Sizes], Row]] = {"photos": _photos, "small": _small, "pages": _pages}
    memory: dict[str, Callable[[Sizes], str]] = {"eta": _eta, "memory": _memory, "restores": _restores, "large": _large}
    chosen = Sizes(**sizes)
    if any(name in (only or pairs) for name in pairs):
        shown((pair(chosen) for name, pair in pairs.items() if name in (only or pairs)), json_path)
    for name, measured in memory.items():
        if name in (only or memory):
            print(measured(chosen), flush=True)


# -- pairs --------------------------------------------------------------------------------------------------------------


def _photos(sizes: Sizes) -> Row:
    """Photos, each of which takes the network far longer than anything else."""
    return _beside_a_script(
        f"{sizes.photos} photos of {WIDTH} × {HEIGHT} in bulk; a loop that syncs too",
        "≥ 0.9",
        sizes,
        lambda at: photo_files(at, sizes.photos),
    )


def _small(sizes: Sizes) -> Row:
    """Pictures so small that everything but the network decides."""
    what = f"{sizes.small} pictures of 32 × 32 in bulk; a loop that syncs too"
    return _beside_a_script(what, "≤ 2 ms a file more", sizes, lambda at: small_files(at, sizes.small), each=sizes.small)


def _beside_a_script(what: str, promised: str, sizes: Sizes, made: Callable[[Path], list[Path]], each: int = 0) -> Row:
    with _folders() as (root, given, out), Home(redis_url="", **_roots(sizes, root)) as home:
        files = made(given)
        network = shipped_network(home.settings.executor, root / "networks")
        address = home.up()
        serve = _read_in_place if sizes.in_place else _sent
        return compared(what, promised, sizes.rounds, lambda: serve(address, files), lambda: restore_in_turn(network, files, out), each)


@contextmanager
def _folders() -> Iterator[tuple[Path, Path, Path]]:
    """A folder, and in it one for what goes in and one for what comes out."""
    with tempfile.TemporaryDirectory(prefix="lacuna-bench-") as name:
        root = Path(name).resolve()
        for folder in (root / "in", root / "out"):
            folder.mkdir()
        yield root, root / "in", root / "out"


def _roots(sizes: Sizes, root: Path) -> dict[str, str]:
    """What the server must be told to read in place."""
    return {"roots": f"read:{root / 'in'},write:{root}"} if sizes.in_place else {}


def _sent(address: str, files: Sequence[Path]) -> None:
    """Four clients send every file into a batch, which is sealed then and waited for."""
    client = load.Client(address)
    batch = client.json("POST", "/v1/batches", b"{}", load.JSON)["id"]

    def send(sender: load.Client, path: Path) -> None:
        sender.ask("POST", "/v1/restorations", load.form(path.name, path.read_bytes(), batch=batch, path=path.name), load.FORM)

    load.shared(address, files, send)
    client.ask("POST", f"/v1/batches/{batch}/seal")
    _until_ended(client, batch, len(files))


def _read_in_place(address: str, files: Sequence[Path]) -> None:
    """The server reads the folder of the files and writes beside it, into a new folder each time."""
    client = load.Client(address)
    folder = files[0].parent
    out = tempfile.mkdtemp(prefix="served-", dir=folder.parent)
    batch = client.json("POST", "/v1/batches", json.dumps({"folder": str(folder), "out": out}).encode(), load.JSON)["id"]
    _until_ended(client, batch, len(files))


def _until_ended(client: load.Client, batch: str, files: int) -> None:
    while (found := client.json("GET", f"/v1/batches/{batch}"))["state"] not in FINAL:
        time.sleep(POLL_S)
    if found["state"] != "succeeded" or found["counts"]["succeeded"] != files:
        raise RuntimeError(f"the batch ended as {found['state']}: {found['counts']}")


def _pages(sizes: Sizes) -> Row:
    """The last page of a batch's items, and the first."""
    with Home(redis_url="") as home:
        address = home.serve()
        client = load.Client(address)
        batch = client.json("POST", "/v1/batches", b"{}", load.JSON)["id"]
        name = f"{0:07}.png"
        client.ask("POST", "/v1/restorations", load.form(name, png(np.zeros((8, 8, 3), np.uint8)), batch=batch, path=name), load.FORM)
        home.fill(sizes.items, lambda number: {"path": f"{number:07}.png"})
        client = load.Client(address)  # the API has closed the idle one meanwhile
        first = f"/v1/batches/{batch}/items?limit={PAGE}"
        last = f"{first}&cursor={base64.urlsafe_b64encode(f'{sizes.items - PAGE - 1:07}.png'.encode()).decode()}"
        what = f"{GETS} GETs of the last {PAGE} of {sizes.items} items; of the first"
        return compared(what, f"≥ {1 / 1.2:.2f}", sizes.rounds, lambda: _full(client, last), lambda: _full(client, first))


def _full(client: load.Client, page: str) -> None:
    for _ in range(GETS):
        if len(client.json("GET", page)["items"]) != PAGE:
            raise RuntimeError(f"{page} is not a full page")


# -- memory -------------------------------------------------------------------------------------------------------------


def _eta(sizes: Sizes) -> str:
    """How far the batch's own estimate is off after a tenth of it, each time."""
    off = []
    with _folders() as (root, given, _), Home(redis_url="", **_roots(replace(sizes, in_place=True), root)) as home:
        files = photo_files(given, sizes.photos)
        client = load.Client(home.up())
        for _ in range(sizes.rounds):
            out = tempfile.mkdtemp(prefix="served-", dir=root)
            order = json.dumps({"folder": str(given), "out": out}).encode()
            batch = client.json("POST", "/v1/batches", order, load.JSON)["id"]
            told, at = 0.0, 0.0
            while (seen := client.json("GET", f"/v1/batches/{batch}"))["state"] not in FINAL:
                if not told and seen["counts"]["succeeded"] >= len(files) / 10:
                    told, at = seen["eta_s"] or 0.0, time.monotonic()
                time.sleep(POLL_S)
            off.append(told / (time.monotonic() - at) - 1)
    shown_off = ", ".join(f"{each:+.0%}" for each in off)
    return f"After a tenth of {sizes.photos} photos a batch's eta_s was off by {shown_off} (promised: 20 %)."


def _memory(sizes: Sizes) -> str:
    """Every program of a folder that is restored, with few files and with a hundred times as many."""
    few, many = (_peaks(count, sizes) for count in (sizes.files, 100 * sizes.files))
    lines = [f"{name}: {few[name]:.0f} and {many[name]:.0f} MB, × {many[name] / few[name]:.2f}" for name in few]
    return f"Most memory for {sizes.files} files of 32 × 32 and for a hundred times as many (promised: × {GROWTH}): {'; '.join(lines)}."


def _peaks(count: int, sizes: Sizes) -> dict[str, float]:
    """MB at most, by program."""
    with _folders() as (root, given, out), Home(redis_url="", **_roots(sizes, root)) as home:
        files = small_files(given, count)
        address = home.up()
        peaks = {}
        if sizes.in_place:
            _read_in_place(address, files)
        else:
            peaks["lacuna"] = _commanded(address, given, out)
        return peaks | {
            "API": home.peak_mb("gunicorn"),
            "worker": home.peak_mb("worker.app", "worker"),
            "upkeep": home.peak_mb("worker.upkeep"),
        }


def _commanded(address: str, given: Path, out: Path) -> float:
    """The most memory of `lacuna folder`."""
    command = [sys.executable, "-c", "from client.cli import main; main()", "--server", f"http://{address}", "folder", str(given), str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        most = 0.0
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError, StopIteration):  # it has just ended
                most = max(most, peak_mb(psutil.Process(process.pid)))
            time.sleep(POLL_S)
        if process.returncode:
            raise RuntimeError(f"lacuna folder ended with {process.returncode}")
    return most


def _restores(sizes: Sizes) -> str:
    """One worker, pictures of random sizes and modes; the largest size in every mode is among the first."""
    with Home() as home:
        worker = home.start("worker.app", "worker")
        early = _most_mb(home, worker, mixed(PHASE, 0, largest_first=True))
        print(f"A worker had {early:.0f} MB at most in the first {PHASE} of {sizes.restores} pictures of {len(MODES)} modes.", flush=True)
        late = _most_mb(home, worker, mixed(sizes.restores - PHASE, 1))
    return f"It had {late:.0f} MB at most in the rest, × {late / early:.3f} (promised: {GROWTH})."


def _large(sizes: Sizes) -> str:
    """One picture of 100 Mpx."""
    with Home() as home:
        worker = home.start("worker.app", "worker")
        most = _most_mb(home, worker, [Picture(Mode("JPEG", 3), LARGE_SIDE, LARGE_SIDE)])
    return f"Most memory of a worker for {LARGE_SIDE**2 // 10**6} Mpx: {most:.0f} MB (promised: {LARGE_MB})."


def _most_mb(home: Home, worker: "subprocess.Popen[bytes]", pictures: Sequence[Picture]) -> float:
    """The most that the worker has in memory while it restores them; seen twenty times a second."""
    waiting = [home.put(picture.file(seed), picture.width, picture.height) for seed, picture in enumerate(pictures)]
    most = 0.0
    for job_id in waiting:
        while not home.succeeded(job_id):
            most = max(most, home.memory_mb(worker))
            time.sleep(SAMPLE_S)
    return most


if __name__ == "__main__":
    sys.exit(main())
