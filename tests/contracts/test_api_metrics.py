"""What Prometheus is told of the database."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from api.app import create_app
from shared.database.engine import open_database
from shared.database.tables import jobs as rows
from shared.jobs.job import Success
from shared.jobs.store import Jobs
from shared.workers.store import Worker
from tests.contracts.api_fixtures import House, code, open_house


@pytest.fixture
def house(tmp_path: Path, database: str) -> Iterator[House]:
    with open_house(tmp_path, database) as opened:
        yield opened


def told(house: House) -> dict[tuple[str, str | None], float]:
    """(metric, lane) → value."""
    answer = house.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(sample.name, sample.labels.get("lane")): sample.value for family in families for sample in family.samples}


def rewrite(house: House, job_id: str, **columns: int) -> None:
    with house.engine.begin() as connection:
        connection.execute(update(rows).where(rows.c.id == job_id).values(**columns))


def test_an_empty_house_waits_for_nothing(house: House) -> None:
    found = told(house)
    assert (found["lacuna_database_up", None], found["lacuna_disk_free_bytes", None] > 0) == (1, True)
    for lane in ("interactive", "bulk", "train"):
        assert found["lacuna_waiting_jobs", lane] == found["lacuna_oldest_waiting_seconds", lane] == found["lacuna_workers", lane] == 0


def test_what_waits_is_told_by_lane_with_its_age(house: House) -> None:
    waits, also, _ = house.restored(), house.restored(), house.restored(lane="bulk")
    rewrite(house, waits.id, created_at=waits.created_at - 90_000, pixels=3_000_000)
    rewrite(house, also.id, pixels=1_000_000)
    house.ports.workers.present(Worker("host:1", ["interactive", "bulk"], "openvino", "bfloat16", "cpu"))
    found = told(house)
    assert (found["lacuna_waiting_jobs", "interactive"], found["lacuna_waiting_jobs", "bulk"]) == (2, 1)
    assert found["lacuna_waiting_megapixels", "interactive"] == 4
    assert 90 <= found["lacuna_oldest_waiting_seconds", "interactive"] < 300
    assert (found["lacuna_workers", "bulk"], found["lacuna_workers", "train"]) == (1, 0)
    assert ("lacuna_backlog_seconds", "interactive") not in found, "nothing has ended yet: who could know"


def test_the_backlog_goes_by_the_rates_of_the_models_and_the_workers_there_are(house: House) -> None:
    done = house.claim(house.restored().id)
    house.jobs.succeed([Success(done, {"bytes": 1}, "aa/x/result.1", [], device_seconds=2 * done.cost_mpx)])  # two seconds a megapixel
    rewrite(house, done.id, changed_at=0)  # as an expiry does
    rewrite(house, house.restored().id, pixels=10_000_000)
    rewrite(house, house.restored(speed="best").id, pixels=1_000_000)
    house.ports.workers.present(Worker("host:1", ["interactive", "bulk"], "openvino", "bfloat16", "cpu"))
    house.ports.workers.present(Worker("host:2", ["interactive"], "openvino", "bfloat16", "cpu"))
    seconds = 2 * (10 + 8 + 0.02) / 2
    assert told(house)["lacuna_backlog_seconds", "interactive"] == pytest.approx(seconds)
    shown = {lane["name"]: lane for lane in house.get("/v1/system").json["lanes"]}
    assert (shown["interactive"]["jobs"], shown["interactive"]["pixels"]) == (2, 11_000_000)
    assert shown["interactive"]["backlog_s"] == pytest.approx(seconds)
    assert (shown["bulk"]["jobs"], shown["bulk"]["backlog_s"]) == (0, 0)


def test_without_its_database_the_rest_is_told_and_requests_are_answered_as_busy(house: House) -> None:
    nowhere = open_database("postgresql+psycopg://lacuna@127.0.0.1:1/lacuna")
    house.ports = replace(house.ports, jobs=Jobs(nowhere, 30))
    house.app = create_app(lambda: house.ports)
    found = told(house)
    assert found["lacuna_database_up", None] == 0
    assert found["lacuna_disk_free_bytes", None] > 0
    answer = house.get("/v1/jobs")
    assert (code(answer), answer.status_code, answer.headers["Retry-After"]) == ("database_busy", 503, "2")
