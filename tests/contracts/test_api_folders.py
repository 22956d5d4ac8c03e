"""Folders of the server's machine are read in place: every picture comes out at the same path, and nothing else is touched."""

import base64
import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared.errors import Outcome, Refused
from shared.folders import names
from shared.folders.folder import Folder
from shared.folders.outputs import OutputDraft, Outputs, Placed
from shared.folders.publishing import settle
from shared.jobs.job import Job, Lane
from shared.jobs.store import Jobs
from tests.contracts.api_fixtures import SOON, Answer, House, code, open_house, png
from tests.contracts.serving import worker_of
from tests.promises import wiring
from worker import listing
from worker.upkeep.resumer import resume_roomy
from worker.wiring import Ports

URL = "/v1/batches"


@dataclass
class Place:
    """A house whose server may read one folder and write another."""

    house: House
    source: Path
    out: Path
    worker: Ports
    inputs: dict[str, str] = field(default_factory=dict)  # hashes of what was put there

    def put(self, path: str, data: bytes | None = None) -> Path:
        file = self.source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png() if data is None else data)
        self.inputs[path] = hashlib.sha256(file.read_bytes()).hexdigest()
        return file

    def ask(self, **body: Any) -> Answer:
        return self.house.post(URL, json={"folder": str(self.source), "out": str(self.out), **body})

    def start(self, **body: Any) -> str:
        answer = self.ask(**body)
        assert answer.status_code == 201, answer.text
        assert answer.json["state"] == "listing"
        return str(answer.json["id"])

    def list(self) -> None:
        """The folder is looked through, and nothing of it is begun."""
        wiring.work(self.worker, lanes=[Lane.INTERACTIVE])

    def work(self) -> None:
        wiring.work(self.worker)
        self.house.ports.batches.finish()

    def run(self, **body: Any) -> str:
        batch = self.start(**body)
        self.work()
        return batch

    def seen(self, batch: str) -> dict[str, Any]:
        answer = self.house.get(f"{URL}/{batch}")
        assert answer.status_code == 200, answer.text
        counts = answer.json["counts"]
        assert counts["total"] == sum(count for name, count in counts.items() if name != "total")
        return dict(answer.json)

    def told(self, batch: str) -> dict[str, int]:
        return {name: count for name, count in self.seen(batch)["counts"].items() if count and name != "total"}

    def items(self, batch: str, **query: str) -> dict[str, dict[str, Any]]:
        return {item["path"]: item for item in self.house.get(f"{URL}/{batch}/items", query_string=query).json["items"]}

    def errors(self, batch: str) -> dict[str, str]:
        return {path: item["error"]["code"] for path, item in self.items(batch, state="failed").items()}

    def outputs(self) -> dict[str, str]:
        """What lies below the folder of outputs: hashes by path."""
        files = [path for path in self.out.rglob("*") if path.is_file()]
        return {path.relative_to(self.out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def place(tmp_path: Path, database: str) -> Iterator[Place]:
    source, out = tmp_path / "scans", tmp_path / "restored"
    source.mkdir()
    out.mkdir()
    with open_house(tmp_path / "home", database, roots=(f"read:{source}", f"write:{out}")) as house:
        yield Place(house, source, out, worker_of(house))


def jpeg(width: int = 9, height: int = 7) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "JPEG", quality=95)
    return file.getvalue()


def test_every_picture_comes_out_at_the_same_path_and_what_is_none_is_counted(place: Place) -> None:
    for path in ("a.png", "a.jpg", "sub/deep er/ü ñ.PNG", f"sub/{'x' * 246}.png"):
        place.put(path, jpeg() if path.endswith("jpg") else None)
    for path in ("Thumbs.db", ".DS_Store", "sub/notes.txt", "._a.png"):
        place.put(path, b"no picture")
    batch = place.run()
    seen = place.seen(batch)
    assert (seen["state"], place.told(batch)) == ("succeeded", {"succeeded": 4, "ignored": 4})
    assert sorted(place.outputs()) == ["a.jpg", "a.png", "sub/deep er/ü ñ.PNG", f"sub/{'x' * 246}.png"]
    assert {path: hashlib.sha256((place.source / path).read_bytes()).hexdigest() for path in place.inputs} == place.inputs
    rows = {row["path"]: row for row in map(json.loads, place.house.get(f"{URL}/{batch}/manifest").text.splitlines())}
    assert {path: row["sha256_in"] for path, row in rows.items() if row["state"] == "succeeded"} == {
        path: place.inputs[path] for path in place.outputs()
    }
    assert {path: row["sha256_out"] for path, row in rows.items() if row["state"] == "succeeded"} == place.outputs()
    assert {path: row["notes"] for path, row in rows.items() if row["state"] == "ignored"}["Thumbs.db"] == ["no_picture"]
    assert place.house.files() == [], "nothing of what is read in place is copied"
    job = place.house.get(f"/v1/jobs/{rows['a.png']['job']}").json
    assert "preview" not in job["links"]
    assert job["expires_at"] is None
    result = place.house.get(job["links"]["result"])
    assert hashlib.sha256(result.data).hexdigest() == place.outputs()["a.png"]


def test_what_was_done_from_the_same_in_the_same_way_is_not_done_again(place: Place) -> None:
    place.put("a.png")
    place.put("b.png")
    place.run()
    again = place.run()
    assert place.told(again) == {"skipped": 2}
    assert {item["notes"][0] for item in place.items(again).values()} == {"done_before"}
    (place.source / "a.png").touch()  # another time, the same contents
    (place.source / "b.png").rename(place.source / "c.png")
    again = place.run()
    assert place.told(again) == {"skipped": 1, "succeeded": 1}, "c.png is new"
    for other in ({"format": "tiff"}, {"strength": 0.5, "on_existing": "overwrite"}):
        assert place.told(place.run(**other)) == {"succeeded": 2}, f"{other} is another output"
    assert place.told(place.run(strength=0.5)) == {"skipped": 2}


def test_a_changed_output_or_input_is_seen_by_its_times_and_with_verify_by_its_contents(place: Place) -> None:
    source = place.put("a.png")
    place.run()
    before = source.stat()
    source.write_bytes(source.read_bytes()[:-1] + b"!")  # of the same size
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place.items(place.run())["a.png"]["notes"] == ["done_before"], "the times say that nothing changed"
    assert place.items(place.run(verify=True))["a.png"]["notes"] == ["output_exists"]
    source.write_bytes(png(5, 4))
    assert place.items(place.run())["a.png"]["notes"] == ["output_exists"]
    assert place.told(place.run(on_existing="overwrite")) == {"succeeded": 1}
    (place.out / "a.png").write_bytes(b"mine")
    assert place.items(place.run())["a.png"]["notes"] == ["output_exists"]
    assert (place.out / "a.png").read_bytes() == b"mine"


def test_a_bad_file_fails_alone_and_is_done_again_when_it_was_mended(place: Place) -> None:
    place.put("good.png")
    place.put("cut.png", png()[:-9])
    place.put("text.jpg", b"hello")
    place.put("empty.tif", b"")
    place.put("inside.png", _corrupt())
    batch = place.run()
    assert place.seen(batch)["state"] == "completed_with_errors"
    assert place.errors(batch) == {
        "cut.png": "image_truncated", "text.jpg": "unsupported_format", "empty.tif": "image_empty", "inside.png": "image_corrupt",
    }  # fmt: skip
    assert place.told(batch) == {"succeeded": 1, "failed": 4}
    place.put("cut.png")
    place.put("inside.png")
    answer = place.house.post(f"{URL}/{batch}/retry")
    assert (answer.status_code, answer.json["state"]) == (200, "running")
    place.work()
    assert place.told(batch) == {"succeeded": 3, "failed": 2}
    assert place.seen(batch)["state"] == "completed_with_errors"
    assert sorted(place.outputs()) == ["cut.png", "good.png", "inside.png"]


def _corrupt() -> bytes:
    """A PNG of noise whose header is right and whose pixels cannot be unpacked."""
    whole = bytearray(png(64, 64))
    at = whole.index(b"IDAT") + 6
    whole[at : at + 8] = bytes(8)
    return bytes(whole)


def test_a_folder_that_could_not_be_looked_into_is_gone_through_by_a_retry(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a.png", "locked/b.png", "locked/sub/c.png", "locked/notes.txt"):
        place.put(path)
    below = Folder.below

    def kept_out(self: Folder, names: Sequence[str], make: bool = False) -> Folder:
        if list(names) == ["locked"]:
            raise Refused("folder_unreadable") from PermissionError(errno.EACCES, "Permission denied")
        return below(self, names, make)

    with monkeypatch.context() as locked:
        locked.setattr(Folder, "below", kept_out)
        batch = place.run()
        for _ in range(2):
            assert (place.seen(batch)["state"], set(place.errors(batch))) == ("completed_with_errors", {"locked"})
            place.house.post(f"{URL}/{batch}/retry")
            place.work()
    place.house.post(f"{URL}/{batch}/retry")
    place.work()
    assert (place.seen(batch)["state"], place.told(batch)) == ("succeeded", {"succeeded": 3, "ignored": 2})
    assert sorted(place.outputs()) == ["a.png", "locked/b.png", "locked/sub/c.png"]


def test_what_is_gone_has_still_failed_after_a_retry_and_a_name_that_is_no_utf_8_is_found_again(place: Place) -> None:
    place.put("good.png")
    place.put("cut.png", png()[:-9])
    odd = os.fsdecode(b"\xff.png")
    place.put(odd, png()[:-9])
    batch = place.run()
    assert place.errors(batch) == {"cut.png": "image_truncated", "\\xff.png": "image_truncated"}
    (place.source / "cut.png").unlink()
    place.put(odd)
    place.house.post(f"{URL}/{batch}/retry")
    place.work()
    assert (place.seen(batch)["state"], place.told(batch)) == ("completed_with_errors", {"succeeded": 2, "failed": 1})
    assert place.errors(batch) == {"cut.png": "file_gone"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"folder": "scans"}, (403, "path_not_allowed")),
        ({"folder": "/usr"}, (403, "path_not_allowed")),
        ({"folder": "{source}/../restored"}, (403, "path_not_allowed")),
        ({"folder": "{source}/none"}, (404, "folder_not_found")),
        ({"folder": "{source}/link"}, (422, "link_refused")),
        ({"folder": "{source}/link/deeper"}, (422, "link_refused")),
        ({"folder": "{source}/file"}, (404, "folder_not_found")),
        ({"out": "{source}"}, (422, "folders_overlap")),
        ({"out": "{source}/inside"}, (422, "folders_overlap")),
        ({"folder": "{out}/inside"}, (422, "folders_overlap")),
        ({"out": "/usr"}, (403, "path_not_allowed")),
        ({"out": "{out}/none"}, (404, "folder_not_found")),
        ({"masks": "/etc", "task": "inpaint"}, (403, "path_not_allowed")),
        ({"mask": "/etc/passwd", "task": "inpaint"}, (403, "path_not_allowed")),
        ({"references": "{source}/none"}, (404, "folder_not_found")),
        ({"task": "inpaint"}, (422, "mask_missing")),
        ({"masks": "{source}"}, (422, "invalid_field")),
        ({"folder": None, "out": "/x"}, (422, "invalid_field")),
        ({"out": None}, (422, "invalid_field")),
        ({"model": "none"}, (422, "unknown_model")),
        ({"format": "gif"}, (422, "invalid_field")),
    ],
)
def test_what_cannot_be_is_refused_at_once_with_a_code_of_its_own(place: Place, body: dict[str, Any], expected: tuple[int, str]) -> None:
    (place.source / "link").symlink_to(place.out)
    (place.source / "file").touch()
    given = {name: value.format(source=place.source, out=place.out) if isinstance(value, str) else value for name, value in body.items()}
    answer = place.house.post(
        URL,
        json={name: value for name, value in ({"folder": str(place.source), "out": str(place.out)} | given).items() if value is not None},
    )
    assert (answer.status_code, code(answer)) == expected, answer.text
    assert place.house.get(URL).json["items"] == []


def test_a_house_without_roots_reads_no_folder(tmp_path: Path, database: str) -> None:
    with open_house(tmp_path, database) as house:
        answer = house.post(URL, json={"folder": str(tmp_path), "out": str(tmp_path)})
        assert code(answer) == "folders_overlap"
        assert code(house.post(URL, json={"folder": "/usr/a", "out": "/usr/b"})) == "path_not_allowed"


def test_a_folder_without_pictures_fails_with_its_reason(place: Place) -> None:
    place.put("notes.txt")
    batch = place.run()
    seen = place.seen(batch)
    assert (seen["state"], seen["reason"], place.told(batch)) == ("failed", "folder_empty", {})
    assert "pause" not in seen["links"]
    place.put("a.png")
    other = place.start(pattern="*.jpg")
    place.work()
    assert place.seen(other)["reason"] == "folder_empty"
    assert place.told(place.run(pattern="*.png")) == {"succeeded": 1, "ignored": 1}


def test_a_folder_that_vanished_before_it_was_listed_fails(place: Place) -> None:
    place.put("a.png")
    batch = place.start()
    place.source.rename(place.source.with_name("moved"))
    place.work()
    assert (place.seen(batch)["state"], place.seen(batch)["reason"]) == ("failed", "folder_not_found")


def test_a_dry_run_tells_how_much_there_is_and_makes_nothing(place: Place) -> None:
    for path in ("a.png", "b.png", "c.png"):
        place.put(path, png(50, 40))
    place.put("torn.png", png()[:-9])
    place.put("notes.txt")
    (place.out / "b.png").write_bytes(b"mine")
    answer = place.ask(dry_run=True)
    assert (answer.status_code, answer.json["kind"], answer.json["batch"]) == (202, "ingest", None)
    place.work()
    job = place.house.get(f"/v1/jobs/{answer.json['id']}").json
    assert job["state"] == "succeeded", job["error"]
    result = job["result"]
    assert {name: result[name] for name in ("files", "pictures", "pixels", "skipped", "failed", "ignored")} == {
        "files": 5, "pictures": 2, "pixels": 4000, "skipped": 1, "failed": 1, "ignored": 1,
    }  # fmt: skip
    assert result["free"] > 0
    assert place.house.get(URL).json["items"] == []
    assert sorted(place.outputs()) == ["b.png"]


def test_what_does_not_fit_is_refused_before_anything_is_begun(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("a.png")
    monkeypatch.setattr("shared.folders.folder.Folder.free", lambda _: 10)
    batch = place.run()
    assert (place.seen(batch)["state"], place.seen(batch)["reason"]) == ("failed", "disk_too_small")
    assert place.outputs() == {}


@pytest.mark.parametrize("wanted", ["keep", "tiff"])
def test_what_is_there_already_needs_no_room(place: Place, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    place.put("a.jpg", jpeg())
    place.run(format=wanted)
    monkeypatch.setattr("shared.folders.folder.Folder.free", lambda _: 10)
    assert place.told(place.run(format=wanted)) == {"skipped": 1}


def test_a_path_that_no_row_can_hold_is_that_picture_s_error(place: Place) -> None:
    deep = "/".join(base64.b32encode(hashlib.shake_256(b"%d" % number).digest(150)).decode() for number in range(12))  # packs badly
    for path in ("a.png", f"{deep}/b.png", f"{deep}/notes.txt"):
        place.put(path)
    batch = place.run()
    assert (place.seen(batch)["state"], place.told(batch)) == ("completed_with_errors", {"succeeded": 1, "failed": 1, "ignored": 1})
    assert list(place.errors(batch).values()) == ["file_unreadable"]
    opened = place.house.post(URL, json={}).json["id"]
    assert code(place.house.restore(batch=opened, path=f"{deep}/b.png")) == "invalid_field"


@pytest.mark.parametrize("what", ["changed", "gone", "link", "folder"])
def test_what_happens_to_a_file_after_it_was_listed_is_that_file_s_error(place: Place, what: str) -> None:
    place.put("good.png")
    file = place.put("sub/it.png", png(20, 20))
    batch = place.start()
    place.list()
    if what == "changed":
        file.write_bytes(png(21, 21))
    else:
        file.rename(file.with_name("moved.png"))
    if what == "link":
        file.symlink_to(file.with_name("moved.png"))
    if what == "folder":
        file.with_name("moved.png").rename(file)
        file.parent.rename(place.source / "elsewhere")
        (place.source / "sub").symlink_to(place.source / "elsewhere")
    place.work()
    expected = {"changed": "file_changed", "gone": "file_gone", "link": "link_refused", "folder": "link_refused"}[what]
    assert place.errors(batch) == {"sub/it.png": expected}
    assert sorted(place.outputs()) == ["good.png"]


def test_a_link_is_not_followed(place: Place) -> None:
    (place.out / "secret.png").write_bytes(png())
    place.put("a.png")
    (place.source / "link.png").symlink_to(place.out / "secret.png")
    (place.source / "folder").symlink_to(place.out)
    batch = place.run()
    assert place.told(batch) == {"succeeded": 1, "ignored": 2}


def test_a_link_among_the_outputs_is_the_error_of_the_pictures_behind_it(place: Place) -> None:
    place.put("sub/a.png")
    place.put("b.png")
    (place.out / "other").mkdir()
    (place.out / "sub").symlink_to(place.out / "other")
    batch = place.run()
    assert (place.told(batch), place.errors(batch)) == ({"succeeded": 1, "failed": 1}, {"sub/a.png": "link_refused"})
    assert sorted(place.outputs()) == ["b.png"]


def test_what_is_no_file_is_something_else_in_the_place_of_an_output(place: Place) -> None:
    for path in ("a.png", "b.png"):
        place.put(path)
    place.run()
    (place.out / "a.png").unlink()
    os.mkfifo(place.out / "a.png")
    batch = place.run(verify=True)
    assert {path: item["notes"] for path, item in place.items(batch).items()} == {"a.png": ["output_exists"], "b.png": ["done_before"]}


def test_an_output_that_was_committed_and_not_renamed_is_put_in_its_place_by_upkeep(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("sub/a.png")
    batch = place.start()
    with monkeypatch.context() as dying:
        dying.setattr(Outputs, "place", _dies)
        wiring.work(place.worker)
    house = place.house
    assert place.told(batch) == {"succeeded": 1}
    assert house.ports.batches.finish() == [], "it ended before its output was in its place"
    (part,) = place.outputs()
    assert part.startswith("sub/.lacuna-")
    job = next(iter(place.items(batch).values()))["job"]
    assert house.get(f"/v1/jobs/{job}/result").status_code == 200, "the result can be had before it is renamed"
    for _ in range(2):
        settle(house.jobs, house.ports.outputs)
    assert list(place.outputs()) == ["sub/a.png"]
    assert house.ports.batches.finish() == [batch]
    assert place.told(place.run()) == {"skipped": 1}


@pytest.mark.parametrize("links", [True, False])
def test_what_got_into_the_place_of_an_output_after_it_was_begun_is_never_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    place.put("a.png")
    batch = place.start()
    if not links:
        monkeypatch.setattr("shared.folders.folder.os.link", _has_no_links)
    with monkeypatch.context() as dying:
        dying.setattr(Outputs, "place", _dies)
        wiring.work(place.worker)
    (place.out / "a.png").write_bytes(b"mine")
    settle(place.house.jobs, place.house.ports.outputs)
    assert (place.out / "a.png").read_bytes() == b"mine"
    assert place.house.ports.batches.finish() == [batch], "it waited for a place that it will never have"
    (part,) = (path for path in place.outputs() if path != "a.png")
    assert part.startswith(".lacuna-"), "the output itself must not be lost"
    assert place.items(place.run())["a.png"]["notes"] == ["output_exists"]


def _has_no_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_an_output_that_was_renamed_and_still_had_its_other_name_when_its_worker_died_is_there_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("a.png")
    batch = place.start()
    with monkeypatch.context() as dying:
        dying.setattr("shared.folders.folder.Folder.remove", _dies)
        wiring.work(place.worker)
    assert len(place.outputs()) == 2
    settle(place.house.jobs, place.house.ports.outputs)
    assert place.house.ports.batches.finish() == [batch]
    assert list(place.outputs()) == ["a.png"]
    assert place.told(place.run()) == {"skipped": 1}


def test_a_folder_in_the_place_of_an_output_is_that_picture_s_error(place: Place) -> None:
    place.put("a.png")
    (place.out / "a.png").mkdir()
    batch = place.run(on_existing="overwrite")
    assert (place.seen(batch)["state"], place.errors(batch)) == ("completed_with_errors", {"a.png": "output_exists"})
    (place.out / "a.png").rmdir()
    place.house.post(f"{URL}/{batch}/retry")

    def sync(_: Outputs, jobs: Sequence[Job], *__: Any) -> None:  # after it was begun
        if jobs:
            (place.out / "a.png").mkdir()

    with pytest.MonkeyPatch.context() as racing:
        racing.setattr(Outputs, "sync", sync)
        place.work()
    assert (place.seen(batch)["state"], place.told(batch)) == ("succeeded", {"succeeded": 1})


def test_nobody_pays_for_the_folder_of_an_earlier_output_that_was_removed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.committer.IDLE_SECONDS", SOON)  # so that the next commit tells of it
    put = Outputs.place

    def putting(self: Outputs, job: Job) -> Placed:
        placed = put(self, job)
        if job.path == "a/1.png":
            shutil.rmtree(place.out / "a", ignore_errors=True)
        return placed

    monkeypatch.setattr(Outputs, "place", putting)
    monkeypatch.setattr("shared.jobs.turns.GROUP_JOBS", 1)
    for path in ("a/1.png", "b/2.png"):
        place.put(path)
    batch = place.run()
    settle(place.house.jobs, place.house.ports.outputs)
    place.house.ports.batches.finish()
    assert (place.seen(batch)["state"], place.told(batch)) == ("succeeded", {"succeeded": 2}), place.errors(batch)


def _dies(*_: Any) -> Any:
    raise OSError(errno.EIO, "the machine died here")


def test_a_part_of_a_lost_attempt_is_never_an_output(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("a.png")
    batch = place.start()
    place.list()

    def canceled(self: Jobs, group: Any, published: Any) -> Any:
        for success in group:
            self.cancel("local", success.job.id)
        return succeed(self, group, published)

    succeed = Jobs.succeed
    with monkeypatch.context() as racing:
        racing.setattr(Jobs, "succeed", canceled)
        wiring.work(place.worker)
    assert place.told(batch) == {"canceled": 1}
    assert place.outputs() == {}, "it was left behind, or even put in its place"


@pytest.mark.parametrize("how", ["again", "canceled", "lost"])
def test_what_a_killed_attempt_left_is_taken_away(place: Place, how: str) -> None:
    file = place.put("sub/a.png")
    batch = place.start()
    place.list()
    (job,) = place.house.jobs.claim("killed", [Lane.BULK], 10**9, True)
    (place.out / "sub").mkdir()
    (place.out / "sub" / names.part(job.id, 1)).write_bytes(b"half of")
    if how == "canceled":
        place.house.jobs.cancel("local", job.id)
    elif how == "lost":
        for _ in range(2):
            assert place.house.jobs.retry(job, lost_worker(), 0)
            (job,) = place.house.jobs.claim("killed", [Lane.BULK], 10**9, True)
        assert place.house.jobs.retry(job, lost_worker(), 0)
    else:
        assert place.house.jobs.retry(job, lost_worker(), 0)
        place.work()
        assert list(place.outputs()) == ["sub/a.png"]
        file.unlink()
    if how != "again":
        assert place.house.ports.batches.finish() == [], "it ended before its leavings were taken away"
        settle(place.house.jobs, place.house.ports.outputs)
        assert place.outputs() == {}
        assert place.house.ports.batches.finish() == [batch]
        settle(place.house.jobs, place.house.ports.outputs)


def lost_worker() -> Outcome:
    return Outcome("worker_lost", "The worker died", "Again.", True)


def test_a_name_that_is_no_utf_8_is_as_good_as_any(place: Place) -> None:
    place.put("a.png")
    odd = os.fsdecode(b"Ren\xe9/Ren\xe9.png")
    place.put(odd)
    batch = place.run()
    assert place.told(batch) == {"succeeded": 2}
    assert sorted(place.outputs()) == sorted(["a.png", odd])
    item = place.items(batch)["Ren\\xe9/Ren\\xe9.png"]
    job = place.house.get(f"/v1/jobs/{item['job']}")
    assert job.json["input"]["name"] == "Ren\\xe9.png"
    assert place.house.get(job.json["links"]["result"]).status_code == 200
    assert len(place.house.get(f"{URL}/{batch}/archive").data) > 0
    assert place.told(place.run()) == {"skipped": 2}


def test_a_link_where_outputs_go_is_that_file_s_error(place: Place) -> None:
    place.put("a.png")
    place.put("sub/b.png")
    (place.out / "sub").symlink_to(place.source)
    batch = place.run()
    assert place.errors(batch) == {"sub/b.png": "link_refused"}
    assert place.told(batch) == {"succeeded": 1, "failed": 1}
    assert {path.name for path in place.source.rglob("*")} == {"a.png", "sub", "b.png"}


def test_a_full_disk_pauses_the_batch_and_room_lets_it_go_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("a.png")
    batch = place.start()
    place.list()
    with monkeypatch.context() as full:
        full.setattr(OutputDraft, "write", _full)
        place.work()
    seen = place.seen(batch)
    assert (seen["state"], seen["reason"], place.told(batch)) == ("paused", "storage_full", {"waiting": 1})
    job = place.house.job(next(iter(place.items(batch).values()))["job"])
    assert job.attempts == 0, "what the disk did counts against the picture"
    assert place.outputs() == {}, "a part was left"
    roots, least = place.house.ports.outputs.roots, 10**18
    resume_roomy(place.house.ports.batches, roots, least)
    assert place.seen(batch)["state"] == "paused"
    resume_roomy(place.house.ports.batches, roots, 0)
    assert (place.seen(batch)["state"], place.seen(batch)["reason"]) == ("running", None)
    place.work()
    assert place.seen(batch)["state"] == "succeeded"


def _full(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_user_s_own_pause_is_not_ended_by_room(place: Place) -> None:
    place.put("a.png")
    batch = place.start()
    place.list()
    place.house.post(f"{URL}/{batch}/pause")
    resume_roomy(place.house.ports.batches, place.house.ports.outputs.roots, 0)
    assert place.seen(batch)["state"] == "paused"


def test_a_listing_that_died_in_the_middle_goes_on_and_finds_nothing_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        place.put(f"{number}.png")
    place.put("torn.png", png()[:-9])
    monkeypatch.setattr(listing, "CHUNK", 3)
    batch = place.start()
    accepted = Jobs.accept_found
    calls = []

    def dies(self: Jobs, *arguments: Any) -> int:
        calls.append(accepted(self, *arguments))
        if len(calls) == 2:
            raise OSError(errno.EIO, "it died here")
        return calls[-1]

    with monkeypatch.context() as dying:
        dying.setattr(Jobs, "accept_found", dies)
        place.list()
    assert place.seen(batch)["counts"]["total"] == 6
    with place.house.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET due_at = 0")
    place.work()
    assert place.told(batch) == {"succeeded": 7, "failed": 1}
    assert place.seen(batch)["state"] == "completed_with_errors"


def test_a_canceled_listing_makes_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        place.put(f"{number}.png")
    monkeypatch.setattr(listing, "CHUNK", 2)
    batch = place.start()
    accepted = Jobs.accept_found

    def canceled(self: Jobs, *arguments: Any) -> int:
        found = accepted(self, *arguments)
        place.house.post(f"{URL}/{batch}/cancel")
        return found

    monkeypatch.setattr(Jobs, "accept_found", canceled)
    place.work()
    assert (place.seen(batch)["state"], place.told(batch)) == ("canceled", {"canceled": 2})


def test_each_picture_has_its_mask_and_reference_by_name_and_one_that_has_none_says_so(tmp_path: Path, database: str) -> None:
    source, out, beside = tmp_path / "scans", tmp_path / "restored", tmp_path / "beside"
    for folder in (source, out, beside / "masks" / "sub", beside / "clean" / "sub"):
        folder.mkdir(parents=True)
    roots = (f"read:{source}", f"read:{beside}", f"write:{out}")
    with open_house(tmp_path / "home", database, shipped=True, roots=roots) as house:
        place = Place(house, source, out, worker_of(house))
        for path in ("a.png", "sub/b.jpg", "sub/none.png"):
            place.put(path, jpeg() if path.endswith("jpg") else png(9, 7))
            if "none" not in path:
                for name in ("masks", "clean"):
                    (beside / name / path).with_suffix(".png").write_bytes(_mask() if name == "masks" else png(9, 7))
        batch = place.run(task="inpaint", model="inpaint-classic", masks=str(beside / "masks"), references=str(beside / "clean"))
        assert place.errors(batch) == {"sub/none.png": "mask_missing"}
        assert sorted(place.outputs()) == ["a.png", "sub/b.jpg.png"]
        rows = [json.loads(line) for line in house.get(f"{URL}/{batch}/manifest").text.splitlines()]
        assert all(
            row["ssim"] is not None or row["psnr"] is not None for row in rows if row["state"] == "succeeded" and row["path"] != "a.png"
        )
        one = place.run(task="inpaint", model="inpaint-classic", mask=str(beside / "masks" / "a.png"), on_existing="overwrite")
        assert place.told(one) == {"succeeded": 3}


def _mask() -> bytes:
    file = io.BytesIO()
    image = Image.new("L", (9, 7))
    image.putpixel((4, 3), 255)
    image.save(file, "PNG")
    return file.getvalue()


def test_two_pictures_never_have_the_same_output(place: Place) -> None:
    place.put("a.jpg", jpeg())
    place.put("a.jpg.png")
    batch = place.run(format="png")
    assert place.errors(batch) == {"a.jpg": "output_taken"}
    assert list(place.outputs()) == ["a.jpg.png"]


def test_the_same_request_with_the_same_key_is_one_folder_run(place: Place) -> None:
    place.put("a.png")
    body = {"folder": str(place.source), "out": str(place.out)}
    first, again = (place.house.post(URL, json=body, headers={"Idempotency-Key": "night"}) for _ in range(2))
    assert (first.json["id"], again.headers["Idempotent-Replayed"]) == (again.json["id"], "true")
    assert code(place.house.post(URL, json=body | {"verify": True}, headers={"Idempotency-Key": "night"})) == "idempotency_mismatch"
    dry = [place.house.post(URL, json=body | {"dry_run": True}, headers={"Idempotency-Key": "dry"}) for _ in range(2)]
    assert dry[0].json["id"] == dry[1].json["id"]


def test_what_an_attempt_before_found_does_not_count_twice_in_the_queue(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "scans", tmp_path / "restored"
    for folder in (source, out):
        folder.mkdir()
    accepted = Jobs.accept_found

    def dying(self: Jobs, listed: Job, found: Any) -> int:
        accepted(self, listed, found)
        return int(_dies())

    with open_house(tmp_path / "home", database, roots=(f"read:{source}", f"write:{out}"), max_queued=4) as house:
        place = Place(house, source, out, worker_of(house))
        for number in range(4):
            place.put(f"{number}.png")
        batch = place.start()
        with monkeypatch.context() as died:
            died.setattr(Jobs, "accept_found", dying)
            place.list()
        assert place.told(batch) == {"waiting": 4}
        with house.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET due_at = 0")
        place.list()
        assert (place.seen(batch)["state"], place.seen(batch)["reason"]) == ("running", None)


def test_a_retry_of_one_picture_reads_it_as_it_is_now(place: Place) -> None:
    file = place.put("a.png", png(20, 20))
    batch = place.start()
    place.list()
    file.write_bytes(png(10, 10))
    place.work()
    assert place.errors(batch) == {"a.png": "file_changed"}
    answer = place.house.post(place.items(batch)["a.png"]["links"]["retry"])
    assert answer.status_code == 202, answer.text
    place.work()
    assert place.told(batch) == {"succeeded": 1}
    listed = place.house.jobs.listing_of(batch)
    assert listed is not None
    assert code(place.house.post(f"/v1/jobs/{listed.id}/retry")) == "batch_state"


def test_two_runs_never_write_into_one_folder_at_a_time(place: Place) -> None:
    place.put("a.png")
    (place.out / "inner").mkdir()
    batch = place.start()
    for out in (place.out, place.out / "inner"):
        refused = place.ask(out=str(out))
        assert (refused.status_code, code(refused)) == (409, "output_busy")
        assert batch in refused.json["detail"]
    assert place.ask(dry_run=True).status_code == 202, "who only looks is in nobody's way"
    place.work()
    assert place.told(place.run()) == {"skipped": 1}


def test_a_listing_that_fails_after_a_pause_fails_its_batch_all_the_same(place: Place) -> None:
    place.put("a.png")
    batch = place.start()
    for move in ("pause", "resume"):
        assert place.house.post(f"{URL}/{batch}/{move}").status_code == 200
    place.source.rename(place.source.with_name("moved"))
    place.work()
    place.house.ports.batches.fail_unlisted()
    assert (place.seen(batch)["state"], place.seen(batch)["reason"]) == ("failed", "folder_not_found")


def test_a_name_that_would_become_too_long_is_that_file_s_error(place: Place) -> None:
    place.put(f"{'x' * 248}.jpg", jpeg())
    place.put(f"{'y' * 247}.jpg", jpeg())
    batch = place.run(format="png")
    assert place.errors(batch) == {f"{'x' * 248}.jpg": "name_too_long"}
    assert list(place.outputs()) == [f"{'y' * 247}.jpg.png"]


def test_where_nothing_may_be_written_it_is_said_at_once_and_if_only_later_then_of_each_file(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, who may write anywhere: the system's answers are made up."""
    place.put("sub/a.png")
    with monkeypatch.context() as refusing:
        refusing.setattr(os, "access", lambda *_, **__: False)
        assert code(place.ask()) == "output_not_writable"
    batch = place.start()
    place.list()

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as refusing:
        refusing.setattr(os, "mkdir", refused)
        place.work()
    assert place.errors(batch) == {"sub/a.png": "output_not_writable"}


def test_a_batch_whose_listing_was_canceled_as_a_job_fails_and_lets_its_folder_go(place: Place) -> None:
    place.put("a.png")
    batch = place.start()
    listed = place.house.jobs.listing_of(batch)
    assert listed is not None
    assert place.house.post(f"/v1/jobs/{listed.id}/cancel").status_code == 200
    place.house.ports.batches.fail_unlisted()
    assert (place.seen(batch)["state"], place.seen(batch)["reason"]) == ("failed", "canceled")
    assert place.told(place.run()) == {"succeeded": 1}


def test_numbers_of_files_that_use_all_64_bits_are_remembered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("a.png")
    fstat = os.fstat

    def pooled(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        return os.stat_result((found[0], found[1] | 1 << 63, *found[2:]), {"st_mtime_ns": found.st_mtime_ns | 1 << 63})

    monkeypatch.setattr("shared.folders.inputs.os.fstat", pooled)
    batch = place.run()
    assert (place.seen(batch)["state"], place.told(batch)) == ("succeeded", {"succeeded": 1})
    assert place.told(place.run()) == {"skipped": 1}


def test_a_retry_does_not_write_into_the_folder_of_a_run_that_came_after(place: Place) -> None:
    place.put("cut.png", png()[:-9])
    place.put("a.png")
    first = place.run()
    job = place.items(first)["a.png"]["links"]["retry"]
    second = place.start(on_existing="overwrite")
    for url in (f"{URL}/{first}/retry", job):
        refused = place.house.post(url)
        assert (refused.status_code, code(refused)) == (409, "output_busy")
        assert second in refused.json["detail"]
    assert place.seen(first)["state"] == "completed_with_errors"
    place.work()
    assert place.house.post(f"{URL}/{first}/retry").json["state"] == "running"


def test_a_result_that_its_user_changed_is_not_sent_as_the_job_s(place: Place) -> None:
    for path in ("longer.png", "same.png", "touched.png"):
        place.put(path)
    batch = place.run()
    (place.out / "longer.png").write_bytes(b"mine, " * 99)
    made = (place.out / "same.png").read_bytes()
    (place.out / "same.png").write_bytes(made[:-1] + b"!")
    os.utime(place.out / "touched.png", ns=(1, 1))
    answers = {path: place.house.get(f"/v1/jobs/{item['job']}/result") for path, item in place.items(batch).items()}
    assert {path: answer.status_code for path, answer in answers.items()} == {"longer.png": 410, "same.png": 410, "touched.png": 200}
    assert code(answers["same.png"]) == "result_expired"
    assert answers["touched.png"].data == made
    zipped = zipfile.ZipFile(io.BytesIO(place.house.get(f"{URL}/{batch}/archive").data))
    told = {row["path"]: row["left_out"] for row in map(json.loads, zipped.read("manifest.jsonl").splitlines())}
    assert told == {"longer.png": "file_changed", "same.png": "file_changed", "touched.png": None}


def test_a_retry_of_what_succeeded_replaces_its_own_output_and_nothing_else(place: Place) -> None:
    place.put("a.png", png(20, 20))
    batch = place.run()
    place.put("a.png", png(10, 10))
    before = place.outputs()
    assert place.house.post(place.items(batch)["a.png"]["links"]["retry"]).status_code == 202
    place.work()
    assert place.told(batch) == {"succeeded": 1}, place.errors(batch)
    assert place.outputs() != before


def test_a_retry_of_what_succeeded_leaves_what_its_user_put_there(place: Place) -> None:
    place.put("a.png")
    batch = place.run()
    (place.out / "a.png").write_bytes(b"mine")
    assert place.house.post(place.items(batch)["a.png"]["links"]["retry"]).status_code == 202
    place.work()
    assert (place.errors(batch), (place.out / "a.png").read_bytes()) == ({"a.png": "output_exists"}, b"mine")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_place_where_nothing_may_be_made_is_told_as_what_it_is(place: Place, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def kept_out(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    place.put("sub/a.png")
    batch = place.start()
    place.list()
    monkeypatch.setattr("shared.folders.folder.os.mkdir", kept_out)
    place.work()
    assert place.errors(batch) == {"sub/a.png": "output_not_writable"}
