"""`make bench`: what the service costs beyond the work itself, as ratios in one run.

Each row is a pair that alternates, ours and a peer that does only what cannot be left out. A ratio is the peer's time by
ours: 0.85 means that ours takes 1/0.85 times as long. Medians of the pairs are shown, with their range. Let the machine do nothing else.
"""

import io
import itertools
import json
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import event, insert, select
from uuid_utils import uuid7

from api import wiring as api_wiring
from api.app import create_app
from benchmarks import load
from benchmarks.engine import alternate
from benchmarks.home import Home
from demo.photos import NAMES, noisy, photo
from shared.database.engine import open_database
from shared.database.tables import jobs as jobs_table
from shared.imaging import codec, tiles
from shared.models import registry
from tests.bad_files import BAD
from trainer.execution import Network, choice

HEIGHT, WIDTH = 321, 481
PHOTOS = 100
UPLOAD_BYTES = 100_000
POSTS = 100  # in a round
GETS = 1_000
SHARDS_FULL = 1_000  # POSTs after which nearly every shard of the blobs was used once
FEW, MANY = 1_000, 1_000_000
FILL = 10_000  # rows in one statement
AT_ONCE = 30  # bad files


@dataclass(frozen=True)
class Row:
    """A comparison: what it is, what is promised, and the ratio of each pair."""

    what: str
    promised: str
    ratios: list[float]
    ours_s: float
    peer_s: float

    @property
    def median(self) -> float:
        """Of the ratios."""
        return statistics.median(self.ratios)

    def json(self) -> dict[str, Any]:
        """For the file."""
        return {
            "what": self.what, "promised": self.promised, "ratio": self.median, "least": min(self.ratios), "most": max(self.ratios),
            "ours_s": self.ours_s, "peer_s": self.peer_s, "pairs": len(self.ratios),
        }  # fmt: skip


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(["throughput", "post", "get", "million", "bad"]), help="Leave the others out.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there too.")
def main(rounds: int, only: tuple[str, ...], json_path: Path | None) -> None:
    """Measure what the service costs on this machine."""
    logging.getLogger("lacuna").setLevel(logging.ERROR)  # that nobody answers our bells is no news
    parts: dict[str, Callable[[int], list[Row]]] = {"throughput": _throughput, "post": _post, "get": _get, "million": _million}
    found = []
    print(f"{'':<62} {'ours':>9} {'peer':>9} {'ratio':>6}  {'range':<13} promised")
    for name, part in parts.items():
        if name in (only or parts):
            for row in part(rounds):
                found.append(row.json())
                span = f"{min(row.ratios):.2f} – {max(row.ratios):.2f}"
                print(f"{row.what:<62} {row.ours_s:>7.3f} s {row.peer_s:>7.3f} s {row.median:>6.2f}  {span:<13} {row.promised}", flush=True)
    if "post" in (only or parts):
        print(f"\n{_fsyncs()}")
    if "bad" in (only or ["bad"]):
        print(_alive_under_fire(rounds))
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _compared(what: str, promised: str, rounds: int, ours: Callable[[], object], peer: Callable[[], object]) -> Row:
    timed = alternate({"peer": peer, "ours": ours}, rounds)
    ratios = [theirs / mine for theirs, mine in zip(timed["peer"].seconds, timed["ours"].seconds, strict=True)]
    return Row(what, promised, ratios, timed["ours"].median, timed["peer"].median)


# -- throughput ---------------------------------------------------------------------------------------------------------


def _throughput(rounds: int) -> list[Row]:
    """100 photos through `lacunad up`, and through a loop over the same functions."""
    files = _photos()
    with Home(redis_url="") as home, tempfile.TemporaryDirectory(prefix="lacuna-bench-") as folder:
        artifact = registry.shipped_artifact("denoise", 1)
        network = choice.choose(home.settings.executor, Path(folder) / "networks").load(artifact)
        address = home.up()
        ours = lambda: _serve(address, files)  # noqa: E731
        peer = lambda: _restore_in_turn(network, files, Path(folder))  # noqa: E731
        what = f"{PHOTOS} photos of {WIDTH} × {HEIGHT}, {load.CLIENTS} clients; a loop that syncs too"
        return [_compared(what, "≥ 0.85", rounds, ours, peer)]


def _photos() -> list[tuple[str, bytes]]:
    """(name, file): cut from the demo's photos, with noise; half JPEG, half PNG."""
    generator = np.random.default_rng(0)
    files = []
    for index in range(PHOTOS):
        clean = photo(NAMES[index % len(NAMES)])
        top, left = (int(generator.integers(0, max(1, size - side + 1))) for size, side in zip(clean.shape, (HEIGHT, WIDTH), strict=False))
        cut = clean[top : top + HEIGHT, left : left + WIDTH]
        below, beside = HEIGHT - cut.shape[0], WIDTH - cut.shape[1]  # one of the photos is a little smaller
        cut = noisy(np.pad(cut, ((0, below), (0, beside), *[(0, 0)] * (cut.ndim - 2)), mode="reflect"))
        kind, options = ("JPEG", {"quality": 92}) if index % 2 else ("PNG", {})
        file = io.BytesIO()
        Image.fromarray(cut).save(file, kind, **options)
        files.append((f"{index:03}.{kind.lower()}", file.getvalue()))
    return files


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


def _restore_in_turn(network: Network, files: list[tuple[str, bytes]], folder: Path) -> None:
    """What a plain script does: read, restore, write each file, and sync it as ours is."""
    for name, data in files:
        source = codec.decode(io.BytesIO(data), len(data), 10**9)
        restored: NDArray[Any] = source.colour.copy()
        height, width = restored.shape[:2]
        for tile, pixels in tiles.apply(network.run, source.colour, tiles.plan(height, width, network.halo, network.multiple)):
            restored[tile.top : tile.bottom, tile.left : tile.right] = pixels
        with (folder / name).open("wb") as file:
            file.write(codec.encode(restored, source, "keep").data)
            file.flush()
            os.fsync(file.fileno())


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
        return [_compared(what, "≥ 0.5", rounds, send("/v1/restorations"), send("/upload"))]


def _png_of(size: int) -> bytes:
    """A picture of noise that takes about so many bytes."""
    side = int((size / 3) ** 0.5)
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def _get(rounds: int) -> list[Row]:
    """`GET /v1/jobs/{id}`, and a view that returns a constant."""
    with Home(redis_url="") as ours, Home(redis_url="") as bare:
        address, other = ours.serve(), bare.serve("benchmarks.bare:app")
        path = f"/v1/jobs/{_submit(address)}"
        what = f"{GETS} GETs of a job, {load.CLIENTS} clients; a view that returns a constant"
        return [_compared(what, "≥ 0.35", rounds, _gets(address, path), _gets(other, "/constant"))]


def _million(rounds: int) -> list[Row]:
    """The last of a million queued jobs, and the last of a thousand."""
    with Home(redis_url="") as full, Home(redis_url="") as small:
        asked = []
        for home, count in ((full, MANY), (small, FEW)):
            address = home.serve()
            _submit(address)
            asked.append(_gets(address, f"/v1/jobs/{_fill(home, count)}"))
        what = f"{GETS} GETs of the last of {MANY} queued jobs; of {FEW}"
        return [_compared(what, f"≥ {1 / 1.3:.2f}", rounds, *asked)]


def _gets(address: str, path: str) -> Callable[[], object]:
    return lambda: load.shared(address, range(GETS), lambda client, _: client.ask("GET", path))


def _submit(address: str) -> str:
    found: str = load.Client(address).json("POST", "/v1/restorations", load.form("noise.png", _png_of(3_000)), load.FORM)["id"]
    return found


def _fill(home: Home, count: int) -> str:
    """Queue copies of the job that is there until there are `count`; returns the id of the last in turn."""
    engine = open_database(home.settings.database)
    with engine.connect() as connection:
        first = dict(connection.execute(select(jobs_table)).one()._mapping)
    last = first["id"]
    for start in range(1, count, FILL):
        rows = [first | {"id": str(uuid7()), "turn": first["turn"] + number} for number in range(start, min(count, start + FILL))]
        with engine.begin() as connection:
            connection.execute(insert(jobs_table), rows)
        last = rows[-1]["id"]
    engine.dispose()
    return str(last)


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
