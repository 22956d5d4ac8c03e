"""Archives that are sent: every picture comes back at its path in an archive of results, and what is made to harm makes nothing."""

import errno
import hashlib
import io
import json
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api import results
from shared.archives import archive as archives
from shared.database.tables import batches as batches_table
from shared.errors import Outcome
from shared.jobs.job import Kind, Lane, State
from shared.jobs.store import Jobs
from tests.contracts.api_fixtures import Answer, House, code, jpeg, open_house, png
from tests.contracts.serving import worker_of
from tests.promises import wiring
from worker import unpacking
from worker.upkeep.sweeper import sweep
from worker.wiring import Ports

URL = "/v1/batches"
DEFLATED, STORED = zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED


@dataclass
class Post:
    """A house that archives are sent to, and the worker that unpacks them."""

    house: House
    worker: Ports

    def send(self, archive: bytes, name: str = "scans.zip", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        form = {"archive": (io.BytesIO(archive), name), **fields}
        return self.house.post(URL, data=form, headers=headers, content_type="multipart/form-data")

    def start(self, archive: bytes, **fields: Any) -> str:
        answer = self.send(archive, **fields)
        assert answer.status_code == 201, answer.text
        assert answer.json["state"] == "listing"
        assert answer.headers["Location"] == answer.json["links"]["self"] == f"{URL}/{answer.json['id']}"
        return str(answer.json["id"])

    def unpack(self) -> None:
        """The archive is unpacked, and nothing of it is begun."""
        wiring.work(self.worker, lanes=[Lane.INTERACTIVE])

    def work(self) -> None:
        wiring.work(self.worker)
        self.house.ports.batches.finish()

    def run(self, archive: bytes, **fields: Any) -> str:
        batch = self.start(archive, **fields)
        self.work()
        return batch

    def seen(self, batch: str) -> dict[str, Any]:
        answer = self.house.get(f"{URL}/{batch}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json)

    def told(self, batch: str) -> dict[str, int]:
        return {name: count for name, count in self.seen(batch)["counts"].items() if count and name != "total"}

    def items(self, batch: str) -> dict[str, dict[str, Any]]:
        return {item["path"]: item for item in self.house.get(f"{URL}/{batch}/items").json["items"]}

    def errors(self, batch: str) -> dict[str, str]:
        return {path: item["error"]["code"] for path, item in self.items(batch).items() if item["error"]}

    def back(self, batch: str) -> zipfile.ZipFile:
        answer = self.house.get(f"{URL}/{batch}/archive")
        assert (answer.status_code, answer.content_type) == (200, "application/zip"), answer.text
        zipped = zipfile.ZipFile(io.BytesIO(answer.data))
        assert zipped.testzip() is None
        return zipped

    def uploads(self) -> list[str]:
        """The blobs that are there, but for results and previews."""
        return [key for key in self.house.files() if key.rsplit("/", 1)[1] in ("archive", "upload") or ".drafts" in key]

    def due(self) -> None:
        with self.house.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET due_at = 0")


@pytest.fixture
def post(tmp_path: Path, database: str) -> Iterator[Post]:
    with open_house(tmp_path, database) as house:
        yield Post(house, worker_of(house))


def packed(files: dict[str, bytes], method: int = DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as zipped:
        for name, data in files.items():
            zipped.writestr(zipfile.ZipInfo(name), data, method)
    return made.getvalue()


def rows(zipped: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in map(json.loads, zipped.read("manifest.jsonl").splitlines())}


LONG = f"{'d' * 200}/{'e' * 200}/{'x' * 240}.png"


def test_every_picture_comes_back_at_its_path_and_what_is_none_is_counted(post: Post) -> None:
    pictures = {"a.png": png(), "sub/deep er/ü ñ 山.PNG": png(5, 4), "b.jpg": jpeg(), LONG: png(4, 4), "./c//d.png": png(6, 4)}
    batch = post.run(packed({**pictures, "sub/": b"", "notes.txt": b"hello", "__MACOSX/._a.png": b"x"}), label="holiday", pattern="*")
    seen = post.seen(batch)
    assert (seen["state"], seen["label"], post.told(batch)) == ("succeeded", "holiday", {"succeeded": 5, "ignored": 2})
    assert seen["params"] == {
        "archive": "scans.zip", "pattern": "*", "task": "denoise", "model": "denoise@1", "format": "keep", "speed": "normal",
    }  # fmt: skip
    zipped = post.back(batch)
    paths = {"c/d.png" if path == "./c//d.png" else path for path in pictures}
    assert zipped.namelist()[-1] == "manifest.jsonl"
    assert set(zipped.namelist()) == {*paths, "manifest.jsonl"}
    manifest = rows(zipped)
    for path in paths:
        row = manifest[path]
        assert hashlib.sha256(zipped.read(path)).hexdigest() == row["sha256_out"]
        assert (row["file"], row["left_out"]) == (path, None)
    assert manifest["a.png"]["sha256_in"] == hashlib.sha256(png()).hexdigest()
    assert (manifest["notes.txt"]["state"], manifest["notes.txt"]["notes"], manifest["notes.txt"]["file"]) == (
        "ignored", ["no_picture"], None,
    )  # fmt: skip
    assert len(post.uploads()) == 5, "the archive is not needed any more"
    job = post.house.get(f"/v1/jobs/{post.items(batch)['a.png']['job']}").json
    assert (job["lane"], job["input"]["name"], job["batch"], job["path"]) == ("bulk", "a.png", batch, "a.png")
    assert {"result", "preview", "retry"} <= set(job["links"]), "it is a job as if it had been uploaded"


def test_the_results_are_streamed_with_the_same_bytes_each_time_and_with_new_endings_where_the_format_changed(post: Post) -> None:
    batch = post.run(packed({"a.jpg": jpeg(), "a.jpg.png": png(), "manifest.jsonl.png": png()}), format="png", lane="interactive")
    first, again = (post.house.get(f"{URL}/{batch}/archive").data for _ in range(2))
    assert first == again
    zipped = post.back(batch)
    job = post.items(batch)["a.jpg.png"]["job"]
    assert zipped.namelist() == ["a.jpg.png", f"a.jpg.png.{job}", "manifest.jsonl.png", "manifest.jsonl"]
    assert rows(zipped)["a.jpg.png"]["file"] == f"a.jpg.png.{job}"
    assert all(info.compress_type == STORED for info in zipped.infolist())
    head = post.house.head(f"{URL}/{batch}/archive")
    assert (head.status_code, head.data) == (200, b"")


def test_what_is_too_large_or_too_many_for_a_plain_zip_is_sent_as_a_large_one(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = post.run(packed({f"{number}.png": png(30, 30) for number in range(3)}))
    with monkeypatch.context() as small:
        small.setattr(zipfile, "ZIP64_LIMIT", 60)
        small.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
        data = post.house.get(f"{URL}/{batch}/archive").data
    assert data.count(b"PK\6\6") == 1
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None


def test_the_results_of_any_batch_can_be_had_as_far_as_they_are_there(post: Post) -> None:
    house = post.house
    batch = house.post(URL, json={}).json["id"]
    assert code(house.get(f"{URL}/{batch}/archive")) == "batch_state"
    assert "archive" not in post.seen(batch)["links"]
    done, expired, failed, named = [house.restored(batch=batch, path=path) for path in ("a.png", "b.png", "c.png", "manifest.jsonl")]
    for job in (done, named):
        house.succeed(job.id)
    house.jobs.fail(house.job(failed.id), Outcome("image_corrupt", "It is damaged", "Send another.", False))
    house.succeed(expired.id, b"gone soon")
    for key in house.ports.blobs.owned(expired.id):
        house.ports.blobs.delete(key)
    assert post.seen(batch)["links"]["archive"] == f"{URL}/{batch}/archive"
    zipped = post.back(batch)
    assert zipped.namelist() == ["a.png", f"manifest.jsonl.{named.id}", "manifest.jsonl"]
    told = rows(zipped)
    assert (told["b.png"]["file"], told["b.png"]["left_out"], told["c.png"]["error"]) == (None, "result_expired", "image_corrupt")
    assert code(house.get(f"{URL}/{done.id}/archive")) == "batch_not_found"
    assert not any(".drafts" in key for key in house.files())


def test_results_in_folders_are_sent_too_unless_their_user_changed_them(tmp_path: Path, database: str) -> None:
    source, out = tmp_path / "scans", tmp_path / "restored"
    (source / "sub").mkdir(parents=True)
    out.mkdir()
    with open_house(tmp_path / "home", database, roots=(f"read:{source}", f"write:{out}")) as house:
        post = Post(house, worker_of(house))
        for name in ("sub/a.png", "b.png", "c.png"):
            (source / name).write_bytes(png())
        batch = house.post(URL, json={"folder": str(source), "out": str(out)}).json["id"]
        post.work()
        (out / "b.png").write_bytes(b"mine")
        (out / "c.png").unlink()
        zipped = post.back(batch)
        assert zipped.namelist() == ["sub/a.png", "manifest.jsonl"]
        assert zipped.read("sub/a.png") == (out / "sub/a.png").read_bytes()
        assert {path: row["left_out"] for path, row in rows(zipped).items()} == {
            "sub/a.png": None, "b.png": "file_changed", "c.png": "result_expired",
        }  # fmt: skip


def test_more_than_some_downloads_at_once_wait(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = post.run(packed({"a.png": png()}))
    for _ in range(results.DOWNLOADS + 1):
        post.back(batch)  # each gives its place back
    monkeypatch.setattr(results._room, "acquire", lambda blocking: False)
    answer = post.house.get(f"{URL}/{batch}/archive")
    assert (answer.status_code, code(answer), answer.headers["Retry-After"]) == (503, "too_many_downloads", "5")


def test_a_bad_picture_fails_alone(post: Post) -> None:
    whole = png(40, 40)
    archive = bytearray(packed({"crc.png": whole, "good.png": png(9, 9)}, STORED))
    archive[archive.index(whole) + 40] ^= 1
    with zipfile.ZipFile(more := io.BytesIO(bytes(archive)), "a") as zipped:
        for name, data in {"cut.png": png()[:-9], "text.jpg": b"hello", "empty.tif": b""}.items():
            zipped.writestr(name, data)
    batch = post.run(more.getvalue())
    assert post.errors(batch) == {
        "crc.png": "image_corrupt", "cut.png": "image_truncated", "text.jpg": "unsupported_format", "empty.tif": "image_empty",
    }  # fmt: skip
    assert (post.seen(batch)["state"], post.told(batch)) == ("completed_with_errors", {"succeeded": 1, "failed": 4})
    assert len(post.uploads()) == 1, "something was left of what was refused"
    assert post.house.post(f"{URL}/{batch}/retry").status_code == 200
    post.work()
    assert post.told(batch) == {"succeeded": 1, "failed": 4}


# -- archives that are made to harm ---------------------------------------------------------------------------------------


def _entry(name: bytes, data: bytes, offset: int, flags: int = 0x800, mode: int = 0, size: int | None = None, method: int = 0) -> bytes:
    """A row of an archive's list of files."""
    size = len(data) if size is None else size
    described = (20 | 3 << 8, 20, flags, method, 0, 33, zlib.crc32(data), len(data), size, len(name), 0, 0, 0, 0, mode << 16, offset)
    return b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", *described) + name


def _local(name: bytes, data: bytes, flags: int = 0x800, method: int = 0) -> bytes:
    return b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 33, zlib.crc32(data), len(data), len(data), len(name), 0) + name


def _ended(body: bytes, entries: list[bytes]) -> bytes:
    listed = b"".join(entries)
    return body + listed + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(listed), len(body), 0)


def _single(name: bytes, data: bytes | None = None, **described: Any) -> bytes:
    data = png() if data is None else data
    return _ended(_local(name, data) + data, [_entry(name, data, 0, **described)])


def _shared(data: bytes) -> bytes:
    """Two names for the same bytes."""
    return _ended(_local(b"a.png", data) + data, [_entry(b"a.png", data, 0), _entry(b"b.png", data, 0)])


def _quoted(files: int) -> bytes:
    """Fifield's: each file's first bytes are a stored block that quotes the header of the next, so all share one kernel."""
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    kernel = raw.compress(bytes(200_000)) + raw.flush()
    plain, body, offsets = bytes(200_000), b"", []
    packed_tail, whole = kernel, plain
    heads: list[tuple[bytes, bytes, bytes]] = []
    for number in reversed(range(files)):
        name = b"%d.png" % number
        head = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, zlib.crc32(whole), len(packed_tail), len(whole), len(name), 0) + name
        heads.append((name, packed_tail, whole))
        quote = struct.pack("<BHH", 0, len(head), len(head) ^ 0xFFFF)
        body = head + packed_tail
        packed_tail, whole = quote + body, head + whole
    at, entries = 0, []
    for name, inner, unpacked in reversed(heads):
        offsets.append(at)
        described = (20, 20, 0, 8, 0, 33, zlib.crc32(unpacked), len(inner), len(unpacked), len(name), 0, 0, 0, 0, 0, at)
        entries.append(b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", *described) + name)
        at += 30 + len(name) + 5
    return _ended(body, entries)


def _zeros(size: int) -> bytes:
    return packed({"a.bmp": bytes(size)})


HARM: dict[str, tuple[Callable[[], bytes], str]] = {
    "absolute": (lambda: _single(b"/etc/a.png"), "archive_traversal"),
    "parent": (lambda: _single(b"sub/../../a.png"), "archive_traversal"),
    "only a parent": (lambda: _single(b".."), "archive_traversal"),
    "backslash": (lambda: _single(b"..\\a.png"), "archive_traversal"),
    "drive": (lambda: _single(b"C:a.png"), "archive_traversal"),
    "nul": (lambda: _single(b"a.png\0.exe"), "archive_traversal"),
    "link": (lambda: _single(b"a.png", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "archive_traversal"),
    "device": (lambda: _single(b"a.png", mode=stat.S_IFCHR | 0o777), "archive_traversal"),
    "no name": (lambda: _single(b""), "archive_traversal"),
    "a folder elsewhere": (lambda: packed({"a.png": png(), "../sub/": b""}), "archive_traversal"),
    "no picture elsewhere": (lambda: packed({"a.png": png(), "../notes.txt": b""}), "archive_traversal"),
    "encrypted": (lambda: _single(b"a.png", flags=0x801), "archive_encrypted"),
    "strongly encrypted": (lambda: _single(b"a.png", flags=0x841), "archive_encrypted"),
    "shared bytes": (lambda: _shared(png()), "archive_overlap"),
    "quoted overlap": (lambda: _quoted(50), "archive_overlap"),
    "into the list": (lambda: _ended(_local(b"a.png", png()), [_entry(b"a.png", png(), 0)]), "archive_overlap"),
    "the same name twice": (lambda: _twice("a.png", "a.png"), "archive_overlap"),
    "the same path twice": (lambda: _twice("a.png", "./a.png"), "archive_overlap"),
    "zeros": (lambda: _zeros(archives.LARGE_BYTES + 1), "archive_bomb"),
    "a lie about its size": (lambda: _single(b"a.png", size=2**32 - 2), "archive_bomb"),
    "no zip": (lambda: b"hello" * 100, "archive_corrupt"),
    "cut off": (lambda: packed({"a.png": png()})[:-30], "archive_corrupt"),
    "without its beginning": (lambda: packed({"a.png": png(), "b.png": png()})[60:], "archive_corrupt"),
    "no header there": (lambda: _ended(b"x" * 200, [_entry(b"a.png", png(), 100)]), "archive_corrupt"),
    "unknown method": (lambda: _single(b"a.png", method=14), "archive_corrupt"),
    "no utf-8": (lambda: _single(b"\xff.png"), "archive_corrupt"),
    "a name without end": (lambda: _single(b"x" * 3000 + b".png"), "archive_corrupt"),
    "nothing": (lambda: b"", "archive_empty"),
    "no files": (lambda: packed({}), "archive_empty"),
    "no pictures": (lambda: packed({"notes.txt": b"hello", "a/": b""}), "archive_empty"),
}  # fmt: skip


def _twice(first: str, second: str) -> bytes:
    made = io.BytesIO()
    with pytest.warns(UserWarning) if first == second else zipfile.ZipFile(io.BytesIO(), "w"), zipfile.ZipFile(made, "w") as zipped:
        for name in (first, second):
            zipped.writestr(name, png())
    return made.getvalue()


@pytest.mark.parametrize("what", HARM)
def test_what_is_made_to_harm_makes_nothing_and_has_a_code_of_its_own(post: Post, what: str) -> None:
    make, expected = HARM[what]
    answer = post.send(make())
    if answer.status_code == 201:  # else the API saw it already
        batch = answer.json["id"]
        post.work()
        seen = post.seen(batch)
        assert (seen["state"], seen["reason"], post.told(batch)) == ("failed", expected, {})
        job = post.house.jobs.listing_of(batch)
        assert job is not None
        assert job.error is not None
        assert len(job.error["detail"]) < 300
        assert post.house.files() == []
    else:
        assert (answer.status_code, code(answer)) == (422, expected), answer.text
        assert post.house.left_behind() == {}


def test_a_second_name_in_an_extra_field_is_looked_at_too(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    name = b"../../evil.png"
    info = zipfile.ZipInfo("a.png")
    info.extra = struct.pack("<HHBL", 0x7075, 5 + len(name), 1, zlib.crc32(b"a.png")) + name
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        zipped.writestr(info, png())
    if sys.version_info < (3, 12):  # which takes no notice of it
        monkeypatch.setattr(zipfile.ZipInfo, "_decodeExtra", lambda info, *_: setattr(info, "filename", name.decode()))
    batch = post.run(made.getvalue())
    assert (post.seen(batch)["state"], post.seen(batch)["reason"]) == ("failed", "archive_traversal")


def test_what_fits_within_the_limits_is_no_bomb(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    assert post.told(post.run(_zeros(archives.LARGE_BYTES // 2))) == {"failed": 1}, "it is no picture, but that is all"
    monkeypatch.setattr(archives, "LARGE_ARCHIVE_BYTES", 50_000)
    batch = post.run(packed({f"{number}.bmp": bytes(20_000) for number in range(3)}))
    assert post.seen(batch)["reason"] == "archive_bomb", "many small ones are a large one"
    assert post.told(post.run(packed({f"{number}.txt": bytes(20_000) for number in range(9)} | {"a.png": png()}))) == {
        "succeeded": 1, "ignored": 9,
    }, "what is not unpacked cannot harm"  # fmt: skip


def test_limits_of_the_disk_of_a_file_of_the_list_and_of_the_queue(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_house(tmp_path, database, max_upload=5_000, max_queued=3) as house:
        post = Post(house, worker_of(house))
        many = packed({f"{number}.png": png() for number in range(4)})
        assert post.seen(post.run(many))["reason"] == "too_many_jobs"
        assert post.seen(post.run(packed({"a.bmp": bytes(5_001)})))["reason"] == "archive_bomb"
        assert code(post.send(bytes(5_001))) == "upload_too_large"
        with monkeypatch.context() as full:
            full.setattr("shared.disk.free", lambda _: 10)
            assert post.seen(post.run(packed({"a.png": png()})))["reason"] == "archive_bomb"
        with monkeypatch.context() as short:
            short.setattr(archives, "DIRECTORY_BYTES", 100)
            assert post.seen(post.run(many))["reason"] == "archive_bomb"
        with monkeypatch.context() as full:
            full.setattr("shared.disk.nearly_full", lambda _: True)
            assert code(post.send(many)) == "storage_full"
        assert house.files() == []
        for _ in range(3):
            house.restored()
        assert code(post.send(many)) == "too_many_jobs"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"task": "inpaint"}, "invalid_field"),
        ({"task": "sharpen"}, "unknown_task"),
        ({"model": "none"}, "unknown_model"),
        ({"folder": "/srv"}, "unknown_field"),
        ({"quality": "0"}, "invalid_field"),
        ({"image": b"x"}, "unknown_field"),
    ],
)
def test_what_cannot_be_is_refused_at_once_and_leaves_nothing(post: Post, fields: dict[str, Any], expected: str) -> None:
    given: dict[str, Any] = {name: (io.BytesIO(value), name) if isinstance(value, bytes) else value for name, value in fields.items()}
    answer = post.send(packed({"a.png": png()}), **given)
    assert (answer.status_code, code(answer)) == (422, expected), answer.text
    assert post.house.left_behind() == {}
    assert code(post.house.post(URL, data={"label": "x"}, content_type="multipart/form-data")) == "invalid_field"
    assert post.house.count(batches_table) == 0


def test_the_same_archive_with_the_same_key_is_one_batch(post: Post) -> None:
    archive, key = packed({"a.png": png()}), {"Idempotency-Key": "night"}
    first, again = (post.send(archive, headers=key) for _ in range(2))
    assert (first.json["id"], again.status_code, again.headers["Idempotent-Replayed"]) == (again.json["id"], 201, "true")
    assert code(post.send(archive, headers=key, label="b")) == "idempotency_mismatch"
    assert code(post.house.post(URL, json={}, headers=key)) == "idempotency_mismatch"
    assert len(post.uploads()) == 1
    assert code(post.send(b"", headers={"Idempotency-Key": "other"})) == "archive_empty"
    assert post.send(archive, headers={"Idempotency-Key": "other"}).status_code == 201, "a refused request kept its key"
    assert post.house.bells.early == []


# -- attempts that end in the middle --------------------------------------------------------------------------------------


SEVEN = {f"{number}.png": png(number + 1, 3) for number in range(7)}


@pytest.mark.parametrize("before", [True, False])
def test_an_attempt_that_dies_in_the_middle_is_gone_on_with_and_unpacks_nothing_twice(
    post: Post, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setattr(unpacking, "CHUNK", 3)
    accepted, calls = Jobs.accept_found, []

    def dies(self: Jobs, *arguments: Any) -> int:
        calls.append(before or accepted(self, *arguments))
        if len(calls) == 2:
            raise OSError(errno.EIO, "it died here")
        return accepted(self, *arguments) if before else 3

    batch = post.start(packed({**SEVEN, "torn.png": png()[:-9]}))
    with monkeypatch.context() as dying:
        dying.setattr(Jobs, "accept_found", dies)
        post.unpack()
    there = 3 if before else 6
    assert post.seen(batch)["counts"]["total"] == there
    assert len(post.uploads()) == there + 1, "the archive must stay, and strays must not"
    sweep(post.house.jobs, post.house.ports.models, post.house.ports.datasets, post.house.ports.blobs, -1)
    assert len(post.uploads()) == there + 1
    unpacked: list[str] = []
    taken = archives.Archive.unpack

    def noted(self: archives.Archive, member: archives.Member, *rest: Any) -> None:
        unpacked.append(member.path)
        taken(self, member, *rest)

    monkeypatch.setattr(archives.Archive, "unpack", noted)
    post.due()
    post.work()
    assert post.told(batch) == {"succeeded": 7, "failed": 1}
    assert len(unpacked) == 8 - there
    assert len(post.uploads()) == 7
    assert len(post.back(batch).namelist()) == 8


def test_a_batch_that_is_canceled_while_it_is_unpacked_makes_no_more_and_leaves_no_blob(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "CHUNK", 3)
    accepted, calls = Jobs.accept_found, []

    def canceled(self: Jobs, *arguments: Any) -> int:
        calls.append(0)
        if len(calls) == 2:
            assert post.house.post(f"{URL}/{batch}/cancel").status_code == 200
        return accepted(self, *arguments)

    batch = post.start(packed(SEVEN))
    monkeypatch.setattr(Jobs, "accept_found", canceled)
    post.work()
    assert (post.seen(batch)["state"], post.told(batch), len(calls)) == ("canceled", {"canceled": 3}, 2)
    assert len(post.uploads()) == 3, "blobs of what the fence refused were left, or the archive"


def test_the_archive_of_a_canceled_batch_that_was_never_unpacked_is_swept_and_that_of_a_waiting_one_is_kept(post: Post) -> None:
    batch, waiting = post.start(packed({"a.png": png()})), post.start(packed({"b.png": png()}))
    post.house.post(f"{URL}/{batch}/cancel")
    assert len(post.uploads()) == 2
    ports = post.house.ports
    sweep(ports.jobs, ports.models, ports.datasets, ports.blobs, -1)
    assert len(post.uploads()) == 1
    post.work()
    assert (post.seen(waiting)["state"], post.told(batch)) == ("succeeded", {})


def test_a_disk_that_gets_full_meanwhile_fails_the_batch_after_its_attempts_and_leaves_what_is_accepted(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = post.start(packed(SEVEN))
    with monkeypatch.context() as full:
        full.setattr("shared.disk.nearly_full", lambda _: True)
        for _ in range(post.house.ports.settings.max_attempts):
            post.unpack()
            assert post.house.files() == [] or len(post.uploads()) == 1
            post.due()
    assert (post.seen(batch)["state"], post.seen(batch)["reason"]) == ("failed", "storage_full")
    assert post.house.files() == []


def test_a_picture_of_an_archive_that_failed_is_done_again_in_its_place(post: Post) -> None:
    torn = bytearray(png(64, 64))
    at = torn.index(b"IDAT") + 6
    torn[at : at + 8] = bytes(8)
    batch = post.run(packed({"a.png": bytes(torn), "b.png": png()}))
    assert post.errors(batch) == {"a.png": "image_corrupt"}
    assert post.house.post(f"{URL}/{batch}/retry").json["state"] == "running"
    post.work()
    assert post.told(batch) == {"succeeded": 1, "failed": 1}
    jobs = [job for job in post.house.jobs.page("local", {"kind": Kind.RESTORE}, 10, None) if job.state is State.FAILED]
    assert len(jobs) == 2, "it was tried again"
    assert post.house.get(f"/v1/jobs/{jobs[0].id}").json["input"]["name"] == "a.png"
