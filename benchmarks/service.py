"""`make bench`: what the service costs beyond the work itself, as ratios in one run.

Each row is a pair that alternates, ours and a peer that does only what cannot be left out. A ratio is the peer's time by
ours: 0.85 means that ours takes 1/0.85 times as long. Medians of the pairs are shown, with their range. Let the machine do nothing else.
"""

import itertools
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
from sqlalchemy import event

from api import wiring as api_wiring
from api.app import create_app
from benchmarks import load
from benchmarks.home import Home
from benchmarks.pairs import Row, compared, shown
from benchmarks.script import HEIGHT, WIDTH, photo_files, png, restore_in_turn, shipped_network
from tests.bad_files import BAD

PHOTOS = 100
UPLOAD_BYTES = 100_000
POSTS = 100  # in a round
GETS = 1_000
SHARDS_FULL = 1_000  # POSTs after which nearly every shard of the blobs was used once
FEW, MANY = 1_000, 1_000_000
FILL = 10_000  # rows in one statement
AT_ONCE = 30  # bad files


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(["throughput", "post", "get", "million", "bad"]), help="Leave the others out.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there too.")
def main(rounds: int, only: tuple[str, ...], json_path: Path | None) -> None:
    """Measure what the service costs on this machine."""
    logging.getLogger("lacuna").setLevel(logging.ERROR)  # that nobody answers our bells is no news
    parts: dict[str, Callable[[int], list[Row]]] = {"throughput": _throughput, "post": _post, "get": _get, "million": _million}
    shown((row for name, part in parts.items() if name in (only or parts) for row in part(rounds)), json_path)
    if "post" in (only or parts):
        print(f"\n{_fsyncs()}")
    if "bad" in (only or ["bad"]):
        print(_alive_under_fire(rounds))


# -- throughput ---------------------------------------------------------------------------------------------------------


def _throughput(rounds: int) -> list[Row]:
    """100 photos through `lacunad up`, and through a loop over the same functions."""
    with Home(redis_url="") as home, tempfile.TemporaryDirectory(prefix="lacuna-bench-") as folder:
        files = photo_files(Path(folder), PHOTOS)
        sent = [(path.name, path.read_bytes()) for path in files]
        out = Path(folder) / "out"
        out.mkdir()
        network = shipped_network(home.settings.executor, out / "networks")
        address = home.up()
        what = f"{PHOTOS} photos of {WIDTH} × {HEIGHT}, {load.CLIENTS} clients; a loop that syncs too"
        return [compared(what, "≥ 0.85", rounds, lambda: _serve(address, sent), lambda: restore_in_turn(network, files, out))]


def _serve(address: str, files: list[tuple[str, bytes]]) -> None:
    """Four clients post all; then wait for each and fetch it."""
    ids: list[str] = []
    load.shared(address, files, lambda client, file: ids.append(client.json("POST", "/v1/restorations", load.form(*file), load.FORM)["id"]))
    load.shared(address, ids, _fetch)


def _fetch(client: load.Client, job_id: str) -> None:
    while (state := client.json("GET", f"/v1/jobs/{job_id}?wait=60")["state"]) in ("queued", "running"):
        pass
    if state != "succeeded":
        raise RuntimeError(f"job {job_id} ended as {state}")
    client.ask("GET", f"/v1/jobs/{job_id}/result")


# -- single requests ----------------------------------------------------------------------------------------------------


def _post(rounds: int) -> list[Row]:
    """`POST /v1/restorations` by an API without a worker, and a bare view."""
    picture = _png_of(UPLOAD_BYTES)
    body = load.form("noise.png", picture)
    with Home(redis_url="") as ours, Home(redis_url="") as bare:
        addresses = {"/v1/restorations": ours.serve(), "/upload": bare.serve("benchmarks.bare:app")}

        def send(path: str) -> Callable[[], object]:
            return lambda: load.shared(addresses[path], [body] * POSTS, lambda client, form: client.ask("POST", path, form, load.FORM))

        what = f"{POSTS} POSTs of {len(picture) // 1000} kB, {load.CLIENTS} clients; a view that hashes and syncs"
        return [compared(what, "≥ 0.5", rounds, send("/v1/restorations"), send("/upload"))]


def _png_of(size: int) -> bytes:
    """A picture of noise that takes about so many bytes."""
    side = int((size / 3) ** 0.5)
    return png(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def _get(rounds: int) -> list[Row]:
    """`GET /v1/jobs/{id}`, and a view that returns a constant."""
    with Home(redis_url="") as ours, Home(redis_url="") as bare:
        address, other = ours.serve(), bare.serve("benchmarks.bare:app")
        path = f"/v1/jobs/{_submit(address)}"
        what = f"{GETS} GETs of a job, {load.CLIENTS} clients; a view that returns a constant"
        return [compared(what, "≥ 0.35", rounds, _gets(address, path), _gets(other, "/constant"))]


def _million(rounds: int) -> list[Row]:
    """The last of a million queued jobs, and the last of a thousand."""
    with Home(redis_url="") as full, Home(redis_url="") as small:
        asked = []
        for home, count in ((full, MANY), (small, FEW)):
            address = home.serve()
            _submit(address)
            asked.append(_gets(address, f"/v1/jobs/{home.fill(count)}"))
        what = f"{GETS} GETs of the last of {MANY} queued jobs; of {FEW}"
        return [compared(what, f"≥ {1 / 1.3:.2f}", rounds, asked[0], asked[1])]


def _gets(address: str, path: str) -> Callable[[], object]:
    return lambda: load.shared(address, range(GETS), lambda client, _: client.ask("GET", path))


def _submit(address: str) -> str:
    found: str = load.Client(address).json("POST", "/v1/restorations", load.form("noise.png", _png_of(3_000)), load.FORM)["id"]
    return found


def _fsyncs() -> str:
    """What one POST syncs, counted in this process: ours calls fsync itself, SQLite once for each transaction that wrote."""
    synced: list[int] = []
    written: list[bool] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    with Home() as home:
        ports = api_wiring.make(home.settings)
        app = create_app(lambda: ports)
        engine = ports.jobs._engine
        event.listen(engine, "commit", lambda connection: written.append("read_only" not in connection.get_execution_options()))
        sent: dict[str, Any] = {"data": load.form("noise.png", _png_of(3_000)), "content_type": load.FORM["Content-Type"]}
        for _ in range(SHARDS_FULL):
            app.test_client().post("/v1/restorations", **sent)
        written.clear()
        with mock.patch("os.fsync", counted):
            for _ in range(POSTS):
                app.test_client().post("/v1/restorations", **sent)
        engine.dispose()
    commits = written.count(True) / POSTS
    return f"fsyncs of one POST: {len(synced) / POSTS:g} of the file and its directories, {commits:g} of SQLite's log; the bare view: 2."


def _alive_under_fire(rounds: int) -> str:
    """How long `/healthz` takes while `AT_ONCE` bad files arrive, each round all of them at once, from another process."""
    forms = [load.form("bad.png", data) for data, _ in itertools.islice(itertools.cycle(BAD.values()), AT_ONCE)]
    took: list[float] = []
    with Home(redis_url="") as home:
        address = home.serve()
        asking = load.Client(address)
        for _ in range(rounds):
            sender = multiprocessing.get_context("fork").Process(target=_send_at_once, args=[address, forms])
            sender.start()
            while sender.is_alive():
                began = time.perf_counter()
                asking.ask("GET", "/healthz")
                took.append(1000 * (time.perf_counter() - began))
            sender.join()
    what = f"/healthz while {AT_ONCE} bad files arrive at once, {len(took)} times in {rounds} rounds"
    return f"{what}: median {statistics.median(took):.0f} ms, at most {max(took):.0f} ms (promised: 100)."


def _send_at_once(address: str, forms: list[bytes]) -> None:
    senders = [threading.Thread(target=load.Client(address).answered, args=["/v1/restorations", form]) for form in forms]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


if __name__ == "__main__":
    sys.exit(main())
