"""How long files are kept, and how long jobs take: what rows and answers say of it."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from shared.database.tables import jobs as jobs_table
from shared.database.tables import rates
from shared.jobs.job import Job, Success
from shared.workers.store import Worker
from tests.contracts.api_fixtures import House, code, open_house
from worker.upkeep.expirer import expire
from worker.upkeep.sweeper import sweep

DAY_MS = 24 * 3_600_000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "home") as opened:
        yield opened


def ended_ago(house: House, job: Job, days: float) -> None:
    ago = int(days * DAY_MS)
    times = {name: jobs_table.c[name] - ago for name in ("created_at", "changed_at", "started_at", "finished_at")}
    with house.engine.begin() as connection:
        connection.execute(update(jobs_table).where(jobs_table.c.id == job.id).values(times))


def present(house: House, name: str = "here:1") -> None:
    house.ports.workers.present(Worker(name, ["interactive", "bulk"], "openvino", "float32", "cpu"))


# -- keeping ------------------------------------------------------------------------------------------------------------


def test_a_job_that_has_ended_says_until_when_its_files_are_kept(house: House) -> None:
    job = house.restored()
    assert house.get(f"/v1/jobs/{job.id}").json["expires_at"] is None
    house.succeed(job.id)
    shown = house.get(f"/v1/jobs/{job.id}").json
    assert datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(shown["finished_at"]) == timedelta(days=30)


def test_files_kept_for_ever_have_no_such_time_and_never_expire(tmp_path: Path) -> None:
    with open_house(tmp_path, keep_days=0) as house:
        job = house.succeed(house.restored().id)
        ended_ago(house, job, 10_000)
        assert house.get(f"/v1/jobs/{job.id}").json["expires_at"] is None
        assert expire(house.jobs, house.ports.settings.keep_seconds) == 0


@pytest.mark.parametrize("how", ["succeeded", "failed", "canceled"])
def test_first_the_row_says_that_it_expired_and_a_pass_later_the_files_go(house: House, how: str) -> None:
    job = house.restored()
    if how == "canceled":
        house.jobs.cancel("local", job.id)
    elif how == "failed":
        house.fail(job.id)
    else:
        house.succeed(job.id)
    kept = house.succeed(house.restored().id)
    ended_ago(house, kept, 29.9)
    ended_ago(house, job, 30.1)
    before, files = house.get(f"/v1/jobs/{job.id}"), house.files()
    assert expire(house.jobs, house.ports.settings.keep_seconds) == 1
    sweep(house.jobs, house.ports.models, house.ports.datasets, house.ports.blobs, grace_seconds=3600)
    assert house.files() == files, "a download under way has nothing to read"
    after = house.get(f"/v1/jobs/{job.id}", headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert after.json == before.json | {"version": job.version + (1 if how == "canceled" else 2) + 1, "links": after.json["links"]}
    assert set(after.json["links"]) == {"self", "delete"}
    assert expire(house.jobs, house.ports.settings.keep_seconds) == 0
    sweep(house.jobs, house.ports.models, house.ports.datasets, house.ports.blobs, grace_seconds=-1)
    assert house.files() == sorted([kept.input["key"], str(kept.result_key)])
    assert house.job(job.id).state == how


def test_a_result_that_expired_is_gone_from_the_moment_its_row_says_so(house: House) -> None:
    job = house.succeed(house.restored().id)
    ended_ago(house, job, 31)
    assert house.get(f"/v1/jobs/{job.id}/result").status_code == 200
    expire(house.jobs, house.ports.settings.keep_seconds)
    for answer in (house.get(f"/v1/jobs/{job.id}/result"), house.post(f"/v1/jobs/{job.id}/retry")):
        assert (code(answer), answer.status_code) == ("result_expired", 410)


def test_expiry_is_a_change_that_a_stream_tells(house: House) -> None:
    job = house.succeed(house.restored().id)
    ended_ago(house, job, 31)
    now = house.jobs.changes(None)[0]
    expire(house.jobs, house.ports.settings.keep_seconds)
    assert [change.id for change in house.jobs.changes(now)[1]] == [job.id]


# -- how long -----------------------------------------------------------------------------------------------------------


def measured(house: House, seconds: float | None) -> Job:
    job = house.claim(house.restored().id)
    result = {"bytes": 1, "sha256": "0" * 64, "type": "image/png", "width": 3, "height": 2, "bits": 8, "executor": "openvino",
              "precision": "float32", "seconds": 0.1}  # fmt: skip
    assert house.jobs.succeed([Success(job, result, "a/b/c", [], device_seconds=seconds)])
    return job


def test_the_rate_of_a_model_follows_what_its_latest_jobs_took(house: House) -> None:
    assert house.jobs.load().rates == {}
    measured(house, None)
    assert house.jobs.load().rates == {}
    cost = measured(house, 0.02).cost_mpx
    assert house.jobs.load().rates == {("denoise", 1): pytest.approx(0.02 / cost)}
    measured(house, 0.04)
    assert house.jobs.load().rates == {("denoise", 1): pytest.approx((0.8 * 0.02 + 0.2 * 0.04) / cost)}
    with house.engine.connect() as connection:
        assert connection.execute(select(rates.c.changed_at)).scalar_one() > 0


def test_an_attempt_that_was_lost_changes_no_rate(house: House) -> None:
    job = house.claim(house.restored().id)
    house.jobs.cancel("local", job.id)
    assert not house.jobs.succeed([Success(job, {"bytes": 1}, "a/b/c", [], device_seconds=5.0)])
    assert house.jobs.load().rates == {}


def test_a_job_says_how_long_it_will_take_as_soon_as_that_is_known(house: House) -> None:
    first = house.restored()
    assert house.get(f"/v1/jobs/{first.id}").json["eta_s"] is None
    house.jobs.cancel("local", first.id)
    measured(house, 3.0)
    jobs = [house.restored() for _ in range(3)]
    assert house.get(f"/v1/jobs/{jobs[0].id}").json["eta_s"] is None, "nobody works"
    present(house)
    etas = [house.get(f"/v1/jobs/{job.id}").json["eta_s"] for job in jobs]
    assert etas == [pytest.approx(seconds, abs=0.1) for seconds in (3.0, 6.0, 9.0)]
    present(house, "here:2")
    assert house.get(f"/v1/jobs/{jobs[2].id}").json["eta_s"] == pytest.approx(etas[2] / 2, abs=0.1)
    house.succeed(jobs[0].id)
    assert house.get(f"/v1/jobs/{jobs[0].id}").json["eta_s"] is None


def test_an_etag_does_not_know_of_the_eta(house: House) -> None:
    measured(house, 3.0)
    present(house)
    job = house.restored()
    first = house.get(f"/v1/jobs/{job.id}")
    present(house, "here:2")
    again = house.get(f"/v1/jobs/{job.id}")
    assert again.json["eta_s"] < first.json["eta_s"]
    assert again.headers["ETag"] == first.headers["ETag"]


def test_a_database_that_goes_away_leaves_the_eta_unknown(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(house.jobs, "load", away)
    answer = house.restore()
    assert (answer.status_code, answer.json["eta_s"]) == (202, None)
