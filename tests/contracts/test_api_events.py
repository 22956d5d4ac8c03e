"""Jobs as they change: what a stream tells, and in which order."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import OperationalError

from api import stream, watch
from api.stream import STREAMS
from shared.database.tables import batches, owners
from shared.database.tables import jobs as jobs_table
from shared.jobs.job import Lane
from shared.jobs.store import LATE_MS, Change, Scope
from tests.contracts.api_fixtures import SOON, Answer, House, code, open_house

NOBODY = "0199c0de-0000-7000-8000-000000000000"
BATCH = "0199c0de-0000-7000-8000-00000000000b"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as opened:
        yield opened


class Stream:
    """A stream as a client reads it."""

    def __init__(self, answer: Answer) -> None:
        assert answer.status_code == 200, answer.text
        self.answer = answer
        self.chunks = answer.iter_encoded()
        self.last_id = ""
        self.comments = 0

    def events(self) -> Iterator[dict[str, Any]]:
        for chunk in self.chunks:
            fields = dict(line.partition(": ")[::2] for line in chunk.decode().strip().splitlines())
            if "data" in fields:
                assert fields["event"] == "job"
                self.last_id = fields["id"]
                yield json.loads(fields["data"])
            self.comments += chunk.startswith(b":")

    def next(self) -> dict[str, Any]:
        return next(self.events())

    def told(self, count: int) -> dict[str, str]:
        """The next `count` events: job → state."""
        found = [self.next() for _ in range(count)]
        return {job["id"]: job["state"] for job in found}


@contextmanager
def streaming(house: House, query: str = "", last_id: str | None = None) -> Iterator[Stream]:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    answer = house.app.test_client().get(f"/v1/events{query}", headers=headers)
    try:
        yield Stream(answer)  # type: ignore[arg-type]  # the same, but for the type of its JSON
    finally:
        answer.close()


def away(*_: object) -> None:
    raise OperationalError("SELECT", {}, Exception("away"))


def an_hour_ago() -> int:
    return int(time.time() * 1000) - 3_600_000


def changed_at(house: House, job_id: str, milliseconds_ago: int) -> None:
    with house.engine.begin() as connection:
        now = house.jobs.changes(None)[0]
        connection.execute(update(jobs_table).where(jobs_table.c.id == job_id).values(changed_at=now - milliseconds_ago))


def test_a_stream_begins_with_the_states_as_they_are_and_goes_on_with_each_change(house: House) -> None:
    ended, waiting = house.restored(), house.restored()
    house.jobs.cancel("local", ended.id)
    with streaming(house) as stream_:
        assert stream_.told(2) == {ended.id: "canceled", waiting.id: "queued"}
        house.claim(waiting.id)
        job = stream_.next()
        assert (job["id"], job["state"], job["version"]) == (waiting.id, "running", 2)
        assert job == house.get(f"/v1/jobs/{waiting.id}").json
        new = house.restored()
        assert stream_.told(1) == {new.id: "queued"}


def test_versions_of_a_job_only_rise_and_the_last_one_is_told(house: House) -> None:
    job = house.restored()
    with streaming(house, f"?job={job.id}") as stream_:
        versions = [stream_.next()["version"]]
        held = house.claim(job.id)
        for done in range(4):
            house.jobs.keep({(job.id, held.token): (done, 4)}, [(job.id, held.token)], renew=False)
        house.jobs.cancel("local", job.id)
        for told in stream_.events():
            versions.append(told["version"])
            if told["state"] == "canceled":
                break
    assert versions == sorted(set(versions))
    assert versions[-1] == house.job(job.id).version


def test_a_stream_of_one_job_tells_of_no_other(house: House) -> None:
    other, job = house.restored(), house.restored()
    with streaming(house, f"?job={job.id}") as stream_:
        assert stream_.told(1) == {job.id: "queued"}
        house.jobs.cancel("local", other.id)
        house.jobs.cancel("local", job.id)
        assert stream_.told(1) == {job.id: "canceled"}


def test_a_stream_of_a_batch_tells_of_its_jobs_only(house: House) -> None:
    other, job = house.restored(), house.restored()
    with house.engine.begin() as connection:
        connection.execute(insert(batches).values(id=BATCH, owner_id="local", state="running", params={}, created_at=0, changed_at=0))
        connection.execute(update(jobs_table).where(jobs_table.c.id == job.id).values(batch_id=BATCH))
    assert [job["id"] for job in house.get(f"/v1/jobs?batch={BATCH}").json["items"]] == [job.id]
    with streaming(house, f"?batch={BATCH}") as stream_:
        assert stream_.told(1) == {job.id: "queued"}
        house.jobs.cancel("local", other.id)
        house.jobs.cancel("local", job.id)
        assert stream_.told(1) == {job.id: "canceled"}


def test_a_stream_tells_of_nobody_else_s_jobs(house: House) -> None:
    theirs, ours = house.restored(), house.restored()  # in this order: what is told is told in that of its change
    with house.engine.begin() as connection:
        connection.execute(insert(owners).values(id="another", created_at=0))
        connection.execute(update(jobs_table).where(jobs_table.c.id == theirs.id).values(owner_id="another"))
    assert code(house.get(f"/v1/events?job={theirs.id}")) == "job_not_found"
    with streaming(house) as stream_:
        assert stream_.told(1) == {ours.id: "queued"}
        house.jobs.cancel("another", theirs.id)
        house.jobs.cancel("local", ours.id)
        assert stream_.told(1) == {ours.id: "canceled"}


def test_a_stream_that_is_resumed_tells_what_changed_since_and_ten_seconds_before(house: House) -> None:
    old, recent, new = (house.restored() for _ in range(3))
    changed_at(house, new.id, 0)
    with streaming(house, f"?job={new.id}") as stream_:
        stream_.next()
    changed_at(house, old.id, LATE_MS + 60_000)
    changed_at(house, recent.id, LATE_MS - 5_000)
    with streaming(house, last_id=stream_.last_id) as resumed:
        assert resumed.told(2) == {recent.id: "queued", new.id: "queued"}
        house.jobs.cancel("local", old.id)
        assert resumed.told(1) == {old.id: "canceled"}


def test_the_id_of_an_event_is_a_time_up_to_which_everything_was_told(house: House) -> None:
    jobs = [house.restored() for _ in range(5)]
    for age, job in enumerate(jobs):
        changed_at(house, job.id, 1000 * (60 - 11 * age))
    with streaming(house) as stream_:
        first = [stream_.next()["id"] for _ in range(3)]
    with streaming(house, last_id=stream_.last_id) as resumed:
        rest = list(resumed.told(3))
    assert first + rest[1:] == [job.id for job in jobs]  # what it was told last is told again


def test_a_row_that_shows_up_late_is_told_all_the_same(house: House) -> None:
    """Its transaction took the time, then waited, then committed."""
    late, other = house.restored(), house.restored()
    with streaming(house) as stream_:
        stream_.told(2)
        house.jobs.cancel("local", other.id)
        stream_.told(1)
        with house.engine.begin() as connection:
            values = {"version": 2, "label": "late", "changed_at": house.jobs.changes(None)[0] - LATE_MS + 3_000}
            connection.execute(update(jobs_table).where(jobs_table.c.id == late.id).values(values))
        assert stream_.next()["label"] == "late"


def test_a_stream_begins_with_the_newest_and_with_all_that_run(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "AT_ONCE", 2)
    jobs = [house.restored() for _ in range(4)]
    (running,) = house.jobs.claim("worker", [Lane.INTERACTIVE], 1, True)
    assert running.id == jobs[0].id
    with streaming(house) as stream_:
        assert stream_.told(3) == {jobs[2].id: "queued", jobs[3].id: "queued", running.id: "running"}


def test_more_streams_than_there_is_room_for_are_refused_until_one_ends(house: House) -> None:
    assert house.head("/v1/events").status_code == 200  # takes no room
    open_ = [house.app.test_client().get("/v1/events") for _ in range(STREAMS)]
    try:
        refused = house.get("/v1/events")
        assert (code(refused), refused.status_code, refused.headers["Retry-After"]) == ("too_many_streams", 503, "5")
        open_.pop().close()
        open_.append(house.app.test_client().get("/v1/events"))
        assert open_[-1].status_code == 200
    finally:
        for answer in open_:
            answer.close()


def test_a_stream_ends_when_its_time_is_over(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STREAM_SECONDS", 0.0)
    job = house.restored()
    with streaming(house) as stream_:
        assert [told["id"] for told in stream_.events()] == [job.id]
    assert not house.ports.watch._followed


def test_a_quiet_stream_shows_that_it_lives_and_is_not_kept_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.01)
    with streaming(house) as stream_:
        headers = stream_.answer.headers
        assert (headers["Content-Type"], headers["X-Accel-Buffering"]) == ("text/event-stream", "no")
        assert headers["Cache-Control"] == "no-store"
        assert next(stream_.chunks).startswith(b"retry: ")
        beats = (re.fullmatch(r": still here\n(?:id: (\d+)\n)?\n", chunk.decode()) for chunk in stream_.chunks)
        told_until = next(int(beat[1]) for beat in beats if beat is not None and beat[1])
        assert abs(told_until - house.jobs.changes(None)[0]) < 1000 * SOON, "it is no time of the database"


def test_streams_end_when_the_service_stops(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(watch, "stopping", stopping)
    monkeypatch.setattr(stream, "STREAM_SECONDS", SOON)
    job = house.restored()
    with streaming(house) as stream_:
        stream_.next()
        stopping.set()
        assert list(stream_.events()) == []
        assert stream_.comments <= 1, f"{job.id} was waited for"


def test_only_the_watch_looks_at_the_database_while_nothing_changes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    enough = threading.Event()
    changes, these = house.jobs.changes, house.jobs.these

    def counted(since: int | None) -> tuple[int, list[Change]]:
        looked.append(threading.current_thread().name)
        if len(looked) > 3:
            enough.set()
        return changes(since)

    monkeypatch.setattr(house.jobs, "changes", counted)
    job = house.restored()
    with streaming(house) as one, streaming(house) as other:
        one.next()
        other.next()
        for name in ("current", "changed", "these"):
            monkeypatch.setattr(house.jobs, name, None)
        assert enough.wait(SOON)
        monkeypatch.setattr(house.jobs, "these", these)
        house.jobs.cancel("local", job.id)
        assert one.told(1) == other.told(1) == {job.id: "canceled"}
    assert set(looked) == {"watch"}


def test_a_database_that_goes_away_ends_a_stream_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.restored()
    with streaming(house) as stream_:
        stream_.next()
        monkeypatch.setattr(house.jobs, "these", away)
        house.jobs.cancel("local", job.id)
        assert list(stream_.events()) == []


@pytest.mark.parametrize("reading", ["current", "changed", "now"])
def test_no_stream_begins_while_the_database_is_away_and_none_holds_its_room(
    house: House, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    last = {"Last-Event-ID": str(an_hour_ago())} if reading == "changed" else {}
    with monkeypatch.context() as patched:
        patched.setattr(house.jobs, reading, away)
        for _ in range(STREAMS + 1):
            refused = house.get("/v1/events", headers=last)
            assert (code(refused), refused.status_code, "Retry-After" in refused.headers) == ("database_busy", 503, True)
    assert not house.ports.watch._followed


@pytest.mark.parametrize("end", ["time", "stop"])
def test_a_stream_that_is_resumed_ends_in_time_also_when_much_has_changed(house: House, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    jobs = [house.restored().id for _ in range(5)]
    monkeypatch.setattr(stream, "PAGE", 2)
    if end == "time":
        monkeypatch.setattr(stream, "STREAM_SECONDS", 0.0)
    else:
        monkeypatch.setattr(watch, "stopping", threading.Event())
        watch.stopping.set()
    with streaming(house, last_id=str(an_hour_ago())) as stream_:
        assert [told["id"] for told in stream_.events()] == jobs[:2]  # a page each time, so that it comes to an end


def test_who_comes_back_after_many_hours_begins_anew(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.restored()
    monkeypatch.setattr(house.jobs, "changed", None)
    with streaming(house, last_id=str(an_hour_ago() - stream.RESUMED_MS)) as stream_:
        assert stream_.told(1) == {job.id: "queued"}


def test_a_change_is_told_though_the_first_looks_after_it_fail(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.jobs.store.LATE_MS", 0)  # as if they failed for longer than that
    changes, back, failed = house.jobs.changes, threading.Event(), threading.Event()

    def looked(since: int | None) -> tuple[int, list[Change]]:
        if not back.is_set():
            failed.set()
            away()
        return changes(since)

    monkeypatch.setattr(house.jobs, "changes", looked)
    job = house.restored()
    with house.ports.watch.following(Scope("local")) as followed:
        assert failed.wait(SOON)
        house.jobs.cancel("local", job.id)
        while house.jobs.now() <= house.job(job.id).changed_at:
            pass  # for a millisecond
        back.set()
        news, _ = house.ports.watch.news(followed, SOON)
    assert [change.id for change in news] == [job.id]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("?job=x", "bad_id"), ("?batch=x", "bad_id"), (f"?job={NOBODY}", "job_not_found"), ("?jobs=1", "unknown_field"), ("?job=", "bad_id")],
)
def test_a_stream_of_what_cannot_be_is_refused(house: House, query: str, expected: str) -> None:
    assert code(house.get(f"/v1/events{query}")) == expected


@pytest.mark.parametrize("last_id", ["x", "-1", "1.5", "9" * 16, "\xb2"])
def test_a_last_event_id_that_is_not_ours_is_refused(house: House, last_id: str) -> None:
    assert code(house.get("/v1/events", headers={"Last-Event-ID": last_id})) == "invalid_field"


def test_a_job_that_was_told_long_ago_is_read_in_chunks(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK", 2)
    monkeypatch.setattr(stream, "PAGE", 3)
    jobs = [house.restored().id for _ in range(5)]
    with house.engine.begin() as connection:  # all in the same millisecond
        connection.execute(update(jobs_table).values(changed_at=int(time.time() * 1000)))
        assert connection.execute(select(jobs_table.c.id)).all()
    with streaming(house, last_id=str(an_hour_ago())) as stream_:
        assert list(stream_.told(5)) == jobs
    with streaming(house, f"?job={jobs[3]}", last_id="9" * 15) as stream_:  # one job is told as it is
        assert list(stream_.told(1)) == [jobs[3]]
    assert [change.id for change in house.jobs.changed(Scope("local"), 0, "", 9)] == jobs
    assert house.jobs.changed(Scope("another"), 0, "", 9) == []
