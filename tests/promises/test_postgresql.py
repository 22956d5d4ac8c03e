"""The same programs on PostgreSQL, each started by itself as on a cluster, with one database between them; and with keys."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from PIL import Image
from sqlalchemy import make_url

from demo.photos import noisy, photo
from tests import databases
from tests.promises.programs import Home, eventually, home


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("postgresql")
    settings = {
        "LACUNA_REDIS_URL": "redis://127.0.0.1:1/0",  # without bells: what is looked for is found in the database
        "LACUNA_HOSTS": "127.0.0.1,photos.example",  # so that a key is needed
    }
    with databases.empty("postgresql", folder) as url, home(folder, LACUNA_DATABASE_URL=url, **settings) as lacuna:
        assert lacuna.lacunad("migrate").wait(60) == 0
        for part in ("api", "worker", "upkeep"):
            lacuna.lacunad(part)
        log = folder / "api.log"
        first = eventually("the first key is shown", lambda: log.exists() and re.search(r"^  (lacuna_\S+)$", log.read_text(), re.MULTILINE))
        eventually("the API lives", lambda: alive(lacuna))
        lacuna.http.headers["Authorization"] = f"Bearer {first[1]}"
        yield lacuna


def alive(lacuna: Home) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return lacuna.http.get("/healthz").status_code == 200
    return False


@pytest.fixture(scope="module")
def noisy_cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "cat.png"
    Image.fromarray(noisy(photo("chelsea"))).save(path)
    return path


def test_nobody_without_the_key_that_the_first_start_showed_is_answered(running: Home) -> None:
    assert running.http.get("/v1/jobs").status_code == 200
    for wrong, status in (({}, 401), ({"Authorization": "Bearer lacuna_wrong"}, 403)):
        assert httpx.get(f"http://{running.address}/v1/jobs", headers=wrong).status_code == status


def test_a_photo_is_restored_and_no_file_of_sqlite_is_made(running: Home, noisy_cat: Path) -> None:
    job = running.final(running.send(noisy_cat).json()["id"])
    assert job["state"] == "succeeded"
    assert len(running.http.get(job["links"]["result"]).content) == job["result"]["bytes"]
    assert not list(running.folder.glob("*.db*"))


def test_a_server_that_drops_every_connection_costs_no_job(running: Home, noisy_cat: Path) -> None:
    url = make_url(running.environ["LACUNA_DATABASE_URL"]).set(drivername="postgresql").render_as_string(hide_password=False)
    job_ids = [running.send(noisy_cat).json()["id"] for _ in range(3)]
    with psycopg.connect(url, autocommit=True) as connection:
        eventually("one is taken", lambda: any(running.job(job_id)["state"] != "queued" for job_id in job_ids))
        connection.execute(databases.END_OTHERS)
    jobs = [running.final(job_id) for job_id in job_ids]
    assert [(job["state"], job["attempts"]) for job in jobs] == [("succeeded", 1)] * 3
