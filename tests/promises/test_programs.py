"""What the real programs promise: photos restored, kills survived, nothing left running. No part is replaced."""

import base64
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from demo.photos import noisy, photo
from shared.bells.bell import TASK
from shared.imaging import metrics
from shared.models import registry
from tests.promises.programs import PATIENCE_SECONDS, Home, eventually, home
from tests.promises.test_publishing import trained
from trainer.evaluation import to_8bit
from trainer.execution import choice


def forged(body: str, **changed: object) -> bytes:
    """A message as Kombu wraps it, with something in it that Celery does not expect."""
    wrapped: dict[str, object] = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": TASK, "id": "1", "lang": "py"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "interactive"},
            "delivery_tag": "1",
            "body_encoding": "base64",
            "correlation_id": "1",
        },
    }
    return json.dumps(wrapped | changed).encode()


EXECUTOR = {"tensorflow": "tensorflow"}.get(os.environ.get("LACUNA_EXECUTOR", "auto"), "openvino")  # LACUNA_EXECUTOR=tensorflow make test
FORGED = (
    b"\x80\x04\x95 a pickle",
    b"\xff\xfe",
    b"not JSON",
    b"[]",
    b"{}",
    b'{"body": "eA==", "headers": {}, "properties": {}}',
    forged("no base64"),
    forged("eA=="),  # no JSON within
    forged(base64.b64encode(b"[]").decode()),
    forged(base64.b64encode(b'{"not": "arguments"}').decode()),
    forged(base64.b64encode(b'[["a job", "and more"], {}, {}]').decode()),
    forged(base64.b64encode(b'[["a job"], {}, {}]').decode(), headers={"task": "os.system", "id": "1"}),
    forged(base64.b64encode(b'[["a job"], {}, {}]').decode(), headers={}),
    forged(base64.b64encode(b'[["a job"], {}, {}]').decode(), **{"content-type": "application/x-python-serialize"}),
    forged(base64.b64encode(b'[["a job"], {}, {}]').decode(), **{"content-encoding": "no-such-encoding"}),
    forged(base64.b64encode(b'[["a job"], {}, {}]').decode(), properties={"delivery_tag": [], "delivery_info": {}}),
)


@pytest.fixture
def noisy_cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat, noisy.png"
    Image.fromarray(noisy(photo("chelsea"))).save(path)
    return path


@pytest.fixture
def big_noise(tmp_path: Path) -> Path:
    """More than 4 Mpx, so that it is restored in several tiles and takes a while."""
    path = tmp_path / "big.png"
    pixels = np.random.default_rng(0).integers(0, 256, (2048, 2560, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=1)
    return path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One `lacunad up` for the tests that leave it well."""
    with home(tmp_path_factory.mktemp("running")) as lacuna:
        lacuna.up()
        yield lacuna


def test_a_noisy_photo_comes_back_better_whole_and_as_recorded(running: Home, noisy_cat: Path) -> None:
    answer = running.send(noisy_cat, Prefer="wait=60")
    job = answer.json() if answer.status_code == 200 else running.final(answer.json()["id"])
    assert job["state"] == "succeeded"
    assert job["result"]["executor"] == EXECUTOR

    result = running.http.get(job["links"]["result"])
    assert hashlib.sha256(result.content).hexdigest() == job["result"]["sha256"]
    assert "cat, noisy.png" in result.headers["Content-Disposition"]
    restored = np.asarray(Image.open(BytesIO(result.content)))
    clean = photo("chelsea")
    gain = metrics.compare(restored, clean).psnr - metrics.compare(noisy(clean), clean).psnr
    assert gain > 8.5


@pytest.mark.parametrize("reference", [found.reference for found in registry.shipped() if found.task == "denoise"])
def test_what_is_served_is_what_a_direct_call_gives(running: Home, noisy_cat: Path, tmp_path: Path, reference: str) -> None:
    with noisy_cat.open("rb") as file:
        job = running.final(running.http.post("/v1/restorations", files={"image": file}, data={"model": reference}).json()["id"])
    assert job["model"] == reference
    served = np.asarray(Image.open(BytesIO(running.http.get(job["links"]["result"]).content)))
    name, version = reference.split("@")
    executor = choice.choose(os.environ.get("LACUNA_EXECUTOR", "auto"), tmp_path, job["result"]["precision"])
    direct = choice.Fitting(executor).load(registry.shipped_artifact(name, int(version)))
    given = np.asarray(noisy(photo("chelsea"))[np.newaxis] / np.float32(255), np.float32)
    assert np.abs(served.astype(int) - to_8bit(direct.run(given)[0])).max() <= 1


def test_every_line_about_a_job_names_the_request_it_came_by_and_every_part_counts(running: Home, noisy_cat: Path) -> None:
    answer = running.send(noisy_cat, **{"X-Request-Id": "followed-1"})
    job_id = answer.json()["id"]
    running.final(job_id)
    lines = [json.loads(line) for line in (running.folder.parent / "up.log").read_text().splitlines() if line.startswith("{")]
    of_request = [line["event"] for line in lines if line.get("request_id") == "followed-1"]
    assert {"job.accepted", "request.answered", "job.claimed", "job.succeeded"} <= set(of_request)
    assert [line for line in lines if line.get("job_id") == job_id and line.get("request_id") != "followed-1"] == []

    counted = running.http.get("/metrics").text
    for line in (
        'lacuna_requests_total{method="POST",route="/v1/restorations",status="202"}',
        'lacuna_jobs_succeeded_total{model="denoise@2"}',
        f'lacuna_seconds_per_megapixel_count{{executor="{EXECUTOR}",model="denoise@2"}}',
        'lacuna_wait_seconds_count{lane="interactive"}',
        "lacuna_claim_seconds_count",
        "lacuna_commit_seconds_count",
        'lacuna_events_total{event="part.started"}',
    ):
        assert re.search(f"^{re.escape(line)} [1-9]", counted, flags=re.MULTILINE), f"{line} is not counted"


def test_the_worker_is_shown_with_what_it_runs_networks_with_and_brings_nothing_else_along(running: Home, noisy_cat: Path) -> None:
    job = running.final(running.send(noisy_cat).json()["id"])
    seen = eventually("the worker is shown", lambda: running.http.get("/v1/system").json()["workers"])
    here = [worker for worker in seen if int(worker["id"].rsplit(":", 1)[1]) == running.worker().pid]
    assert len(here) == 1
    assert (here[0]["executor"], here[0]["precision"]) == (EXECUTOR, job["result"]["precision"])
    assert here[0]["lanes"] == ["interactive", "bulk"]
    mapped = " ".join(mapping.path for mapping in running.worker().memory_maps())
    assert ("-packages/openvino/" in mapped, "-packages/tensorflow/" in mapped) == (EXECUTOR == "openvino", EXECUTOR == "tensorflow")


def test_a_stream_tells_of_a_picture_until_its_end_and_can_be_resumed(running: Home, noisy_cat: Path) -> None:
    def told(**headers: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with running.http.stream("GET", "/v1/events", headers={"Accept": "text/event-stream", **headers}) as answer:
            assert answer.status_code == 200
            last_id = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                last_id = value if name == "id" else last_id
                if name == "data":
                    yield last_id, json.loads(value)

    running.send(noisy_cat)  # whose state the stream begins with
    job_id, last_id, state = "", "", ""
    versions = [0]
    for event_id, job in told():
        last_id = event_id
        job_id = job_id or running.send(noisy_cat).json()["id"]
        if job["id"] == job_id:
            assert job["version"] > versions[-1]
            versions.append(job["version"])
            state = job["state"]
        if state == "succeeded":
            break
    again = next(job for _, job in told(**{"Last-Event-ID": last_id}) if job["id"] == job_id)
    assert again == running.job(job_id)


def test_messages_that_are_no_bells_of_ours_are_dropped_and_the_worker_lives(running: Home, noisy_cat: Path) -> None:
    worker = running.worker()
    with closing(Redis(unix_socket_path=str(running.folder / "run" / "valkey.sock"))) as redis:
        for message in FORGED:
            redis.lpush("interactive", message)
        redis.publish("/0.celery.pidbox", b"not JSON")
        eventually("the worker has taken them all", lambda: not redis.llen("interactive"))
    assert running.final(running.send(noisy_cat).json()["id"])["state"] == "succeeded"
    assert running.worker() == worker


def add_model(lacuna: Home, folder: Path) -> subprocess.CompletedProcess[str]:
    """`lacuna models add`, as a user calls it."""
    argv = [str(Path(sys.executable).with_name("lacuna")), "--server", f"http://{lacuna.address}", "models", "add", str(folder)]
    return subprocess.run(argv, env=lacuna.environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def test_a_model_of_ones_own_is_added_by_the_trainer_and_restores_pictures(running: Home, noisy_cat: Path, tmp_path: Path) -> None:
    added = add_model(running, trained(tmp_path / "mine"))
    assert added.returncode == 0, added.stderr
    assert "mine@1 is ready" in added.stdout
    with noisy_cat.open("rb") as file:
        job_id = running.http.post("/v1/restorations", files={"image": file}, data={"model": "mine"}).json()["id"]
    job = running.final(job_id)
    assert (job["state"], job["model"]) == ("succeeded", "mine@1")
    assert job["result"]["executor"] == EXECUTOR
    lanes = [worker["lanes"] for worker in running.http.get("/v1/system").json()["workers"]]
    assert ["train"] in lanes
    again = add_model(running, tmp_path / "mine")
    assert again.returncode == 1
    assert "mine@1 stays" in again.stderr


def test_a_trainer_that_is_killed_while_it_exports_costs_an_attempt_and_the_model_gets_ready(running: Home, tmp_path: Path) -> None:
    folder = trained(tmp_path / "killed", name="killed")
    files = {"manifest": (folder / "manifest.json").read_bytes(), "weights": (folder / "weights.safetensors").read_bytes()}
    job_id = running.http.post("/v1/models", files=files).json()["id"]
    (exporting,) = eventually("a child exports", lambda: running.processes("trainer.execution.export"))
    (trainer,) = running.processes("worker.app trainer")
    trainer.kill()
    eventually("the child is gone with it", lambda: not exporting.is_running())
    job = running.final(job_id)
    assert (job["state"], job["attempts"]) == ("succeeded", 2)
    assert not list((running.folder / "models").glob(".*")), "what the killed one was making was left behind"
    assert running.http.get("/v1/models/killed").json()["items"][0]["state"] == "ready"


def test_a_second_lacunad_on_the_same_home_or_port_says_so(running: Home, tmp_path: Path) -> None:
    log = running.folder.parent / "up.log"
    assert running.lacunad("up").wait(60) == 1
    assert "already runs" in log.read_text()
    with home(tmp_path, LACUNA_BIND=running.address) as other:
        assert other.lacunad("up").wait(60) == 1
        assert "is taken" in (tmp_path / "up.log").read_text()


def test_a_worker_killed_in_mid_job_costs_one_attempt_and_the_job_succeeds_once(running: Home, big_noise: Path) -> None:
    job_id = running.send(big_noise).json()["id"]
    eventually("a tile is done", lambda: running.job(job_id)["progress"]["done"] >= 1)
    running.worker().kill()
    ended = running.final(job_id)
    assert ended["state"] == "succeeded"
    assert ended["attempts"] == 2
    result = running.http.get(ended["links"]["result"])
    assert hashlib.sha256(result.content).hexdigest() == ended["result"]["sha256"]
    with closing(sqlite3.connect(running.folder / "lacuna.db")) as database:
        assert database.execute("SELECT count(*) FROM jobs WHERE id = ? AND state = 'succeeded'", [job_id]).fetchone() == (1,)


STOPPED_WHILE_IT_STARTS = """
import os, signal, time
from worker import app, committer
from shared.workers.store import Workers
present, start = Workers.present, committer.Committer.start
shown = []
Workers.present = lambda self, worker: (present(self, worker), shown.append(worker))

def started(self):
    while not shown: time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    start(self)

committer.Committer.start = started
app.main()
"""


def test_a_worker_that_is_stopped_while_it_starts_is_not_shown_any_more(tmp_path: Path) -> None:
    with home(tmp_path) as lacuna:
        lacuna.folder.mkdir()
        subprocess.run([sys.executable, "-m", "server.cli", "migrate"], env=lacuna.environ, check=True)
        stopped = [sys.executable, "-c", STOPPED_WHILE_IT_STARTS, "worker"]
        with subprocess.Popen(stopped, env=lacuna.environ, stdin=subprocess.PIPE) as worker:  # its lifeline
            worker.wait(60)
        with closing(sqlite3.connect(lacuna.folder / "lacuna.db")) as database:
            assert database.execute("SELECT * FROM workers").fetchall() == []


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with home(tmp_path) as lacuna:
        up = lacuna.up()
        eventually("the worker is shown", lambda: lacuna.http.get("/v1/system").json()["workers"])
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
        assert lacuna.processes() == []
        with closing(sqlite3.connect(lacuna.folder / "lacuna.db")) as database:
            assert database.execute("SELECT * FROM workers").fetchall() == [], "a worker that ended is still shown"


def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    with home(tmp_path) as lacuna:
        up = lacuna.up()
        lacuna.worker()
        up.kill()
        up.wait()
        eventually("every child has ended", lambda: not lacuna.processes())


def test_parts_that_die_or_freeze_are_started_again(tmp_path: Path, noisy_cat: Path) -> None:
    with home(tmp_path, LACUNA_SILENCE_SECONDS="6") as lacuna:
        lacuna.up()
        frozen = lacuna.worker()
        frozen.suspend()
        for process in lacuna.processes("gunicorn"):
            process.suspend()
        for process in lacuna.processes("worker.upkeep") + lacuna.processes("valkey-server"):
            process.kill()
        eventually("the frozen worker is gone", lambda: not frozen.is_running())
        eventually("the API answers again", lacuna.ready)
        for guardian in lacuna.processes("worker.guardian"):
            guardian.kill()
        assert lacuna.final(lacuna.send(noisy_cat).json()["id"])["state"] == "succeeded"
        eventually("Redis answers again", lambda: lacuna.http.get("/readyz").json()["status"] == "ok")


def test_with_redis_stopped_before_the_post_the_job_is_accepted_and_runs_while_it_is_still_stopped(tmp_path: Path, noisy_cat: Path) -> None:
    with home(tmp_path, LACUNA_REDIS_URL=f"redis+socket://{tmp_path}/nobody.sock?virtual_host=0") as lacuna:
        assert lacuna.lacunad("migrate").wait(60) == 0
        for part in ("api", "worker", "upkeep"):
            lacuna.lacunad(part)
        lacuna.answers()
        assert lacuna.http.get("/readyz").json()["status"] == "degraded"
        answer = lacuna.send(noisy_cat)
        assert answer.status_code == 202
        assert lacuna.final(answer.json()["id"])["state"] == "succeeded"
        assert lacuna.http.get("/readyz").json()["parts"]["redis"] == "down"
