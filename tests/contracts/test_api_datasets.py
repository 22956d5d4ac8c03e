"""Data sets: what is sent is checked as a whole, kept as pixels, told in a report; and what cannot be used makes nothing."""

import errno
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from uuid_utils import uuid7

from shared import disk
from shared.archives import archive as archives
from shared.blobs.local import LocalDraft
from shared.database.tables import datasets as rows
from shared.datasets import packed
from shared.datasets.packed import Index, Stored
from shared.errors import Refused
from shared.jobs.job import DATASET, Job, Kind, Lane, NewJob, State
from shared.jobs.store import Jobs
from shared.trainings.recipe import is_held_out
from tests.contracts.api_fixtures import Answer, House, code, open_house, png
from tests.contracts.photos import deep, noisy, photo, put
from tests.contracts.photos import packed as filed
from tests.contracts.serving import worker_of
from tests.contracts.test_api_archives import HARM
from tests.contracts.test_api_archives import packed as zipped
from tests.contracts.test_api_keys import bearer
from tests.promises import wiring
from worker import findings, ingesting
from worker.upkeep.sweeper import sweep
from worker.wiring import Ports

URL = "/v1/datasets"
THREE = {"a.png": filed(photo(1)), "sub/b.jpg": filed(photo(2), "JPEG", quality=95), "c.tif": filed(photo(3, grey=True), "TIFF")}


@dataclass
class Library:
    """A house whose server may read one folder, and the worker that makes data sets."""

    house: House
    folder: Path
    worker: Ports

    def ask(self, kind: str = "clean", headers: dict[str, str] | None = None, **body: Any) -> Answer:
        return self.house.post(URL, json={"kind": kind, "folder": str(self.folder), **body}, headers=headers)

    def send(self, archive: bytes, kind: str = "clean", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        form = {"archive": (io.BytesIO(archive), "photos.zip"), "kind": kind, **fields}
        return self.house.post(URL, data=form, headers=headers, content_type="multipart/form-data")

    def started(self, answer: Answer) -> str:
        assert answer.status_code == 202, answer.text
        job = answer.json
        assert answer.headers["Location"] == job["links"]["self"]
        assert (job["kind"], job["lane"], job["task"], job["model"]) == ("ingest", "bulk", None, None)
        dataset = str(job["links"]["dataset"].rsplit("/", 1)[1])
        seen = self.seen(dataset)
        assert (seen["state"], seen["job"], seen["sha256"], seen["report"]) == ("ingesting", job["id"], None, None)
        return dataset

    def work(self) -> None:
        wiring.work(self.worker)

    def of_folder(self, files: dict[str, bytes], kind: str = "clean", **body: Any) -> str:
        put(self.folder, files)
        dataset = self.started(self.ask(kind, **body))
        self.work()
        return dataset

    def of_zip(self, files: dict[str, bytes], kind: str = "clean", **fields: Any) -> str:
        dataset = self.started(self.send(zipped(files), kind, **fields))
        self.work()
        return dataset

    def seen(self, dataset: str) -> dict[str, Any]:
        answer = self.house.get(f"{URL}/{dataset}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json)

    def report(self, dataset: str) -> dict[str, Any]:
        answer = self.house.get(f"{URL}/{dataset}/report")
        assert answer.status_code == 200, answer.text
        report = dict(answer.json)
        assert report["images"] == report["usable"] + report["counts"]["skipped"] + report["counts"]["duplicates"]
        return report

    def skipped(self, dataset: str) -> dict[str, str]:
        return {item["path"]: item["code"] for item in self.report(dataset)["skipped"]}

    def job(self, dataset: str) -> Job:
        return self.house.job(self.seen(dataset)["job"])

    def stored(self, dataset: str) -> tuple[Index, np.ndarray[Any, Any]]:
        found = self.house.ports.datasets.get(dataset, "local")
        assert found is not None
        assert found.index_key is not None and found.pixels_key is not None
        with self.house.ports.blobs.open(found.index_key) as index, self.house.ports.blobs.open(found.pixels_key) as pixels:
            return Index.parse(json.load(index)), np.frombuffer(pixels.read(), np.uint8)

    def due(self) -> None:
        with self.house.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET due_at = 0")

    def sweep(self) -> None:
        ports = self.house.ports
        sweep(ports.jobs, ports.models, ports.datasets, ports.blobs, -1)


@pytest.fixture
def library(tmp_path: Path, database: str) -> Iterator[Library]:
    folder = tmp_path / "photos"
    folder.mkdir()
    with open_house(tmp_path / "home", database, roots=(f"read:{folder}",)) as house:
        yield Library(house, folder, worker_of(house))


def pixels_of(stored: Stored, pixels: np.ndarray[Any, Any], target: bool = False) -> np.ndarray[Any, Any]:
    start = stored.target if target else stored.offset
    assert start is not None
    assert start % packed.ALIGNED == 0
    return pixels[start : start + stored.size].view("<u2" if stored.bits == 16 else np.uint8).reshape(stored.shape)


# -- what is sent becomes a data set --------------------------------------------------------------------------------------


def test_a_folder_becomes_a_set_that_holds_its_pixels_and_tells_of_them(library: Library) -> None:
    files = {**THREE, "d.png": deep(photo(4, grey=True)), "notes.txt": b"hello", "inner.zip": zipped({"x.png": png()})}
    dataset = library.of_folder(files, label="holiday")
    seen = library.seen(dataset)
    assert (seen["state"], seen["kind"], seen["label"], seen["images"], seen["pixels"]) == ("ready", "clean", "holiday", 4, 4 * 96 * 64)
    index, pixels = library.stored(dataset)
    assert (index.kind, index.sha256) == ("clean", seen["sha256"])
    by_name = {stored.name: stored for stored in index.images}
    assert {name: (stored.channels, stored.bits) for name, stored in by_name.items()} == {
        "a.png": (3, 8), "c.tif": (1, 8), "d.png": (1, 16), "sub/b.jpg": (3, 8),
    }  # fmt: skip
    assert (pixels_of(by_name["a.png"], pixels) == photo(1)).all()
    assert (pixels_of(by_name["c.tif"], pixels) == photo(3, grey=True)).all()
    assert (pixels_of(by_name["d.png"], pixels) == photo(4, grey=True).astype(np.uint16) * 257).all()
    report = library.report(dataset)
    assert seen["report"] == {
        "images": 4, "usable": 4, "ignored": 2, "skipped": 0, "duplicates": 0, "near_duplicates": 0, "noisy": 0, "misaligned": 0,
        "largest_patch": 64,
    }  # fmt: skip
    assert report["modes"] == {"grey-16": 1, "grey-8": 1, "rgb-8": 2}
    assert report["sizes"]["median"] == {"width": 96, "height": 64}
    held_out = sum(is_held_out(stored.split_key, 0.05) for stored in index.images)
    assert report["split"] == {"share": 0.05, "training": 4 - held_out, "held_out": held_out}
    assert {path.name for path in library.folder.rglob("*") if path.is_file()} == {path.rsplit("/", 1)[-1] for path in files}
    job = library.house.get(f"/v1/jobs/{seen['job']}").json
    assert (job["state"], job["result"]["sha256"], job["result"]["bytes"]) == ("succeeded", seen["sha256"], seen["bytes"])
    assert seen["bytes"] == sum((library.house.blobs / key).stat().st_size for key in library.house.files())


def test_a_zip_with_the_same_pictures_is_the_same_set_and_is_not_kept(library: Library) -> None:
    one, other = library.of_folder(THREE), library.of_zip({f"album/{path}": data for path, data in THREE.items()} | {"album/": b""})
    assert library.seen(one)["sha256"] == library.seen(other)["sha256"]
    assert [stored.name for stored in library.stored(other)[0].images] == ["album/a.png", "album/c.tif", "album/sub/b.jpg"]
    parts = sorted(key.rsplit("/", 1)[1] for key in library.house.files())
    assert parts == ["index.1", "index.1", "pixels.1", "pixels.1"], "the archive is not needed any more"
    listed = library.house.get(URL).json
    assert ([item["id"] for item in listed["items"]], listed["next"]) == ([other, one], None)
    first = library.house.get(f"{URL}?limit=1").json
    assert [item["id"] for item in library.house.get(f"{URL}?limit=1&cursor={first['next']}").json["items"]] == [one]


def test_what_was_deleted_is_gone_with_its_files_and_what_it_was_made_of_stays(library: Library) -> None:
    dataset = library.of_folder(THREE)
    assert library.house.delete(f"{URL}/{dataset}").status_code == 204
    assert library.house.files() == []
    assert code(library.house.get(f"{URL}/{dataset}")) == "dataset_not_found"
    assert code(library.house.delete(f"{URL}/{dataset}")) == "dataset_not_found"
    assert (library.folder / "a.png").is_file()


def test_pictures_are_kept_as_a_viewer_shows_them(library: Library) -> None:
    turned = photo(1)
    exif = filed_exif(6)
    transparent = np.dstack([photo(2), np.full((64, 96, 1), 128, np.uint8)])
    dataset = library.of_folder({"a.png": filed(turned, exif=exif), "b.png": filed(transparent)})
    index, pixels = library.stored(dataset)
    assert [stored.shape for stored in index.images] == [(96, 64, 3), (64, 96, 3)]
    assert (pixels_of(index.images[0], pixels) == np.rot90(turned, -1)).all()
    assert (pixels_of(index.images[1], pixels) == photo(2)).all()


def filed_exif(orientation: int) -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_pairs_lie_beside_each_other_with_the_channels_and_the_depth_of_the_richer(library: Library) -> None:
    clean = {name: photo(number, grey=name == "d") for number, name in enumerate("abcd")}
    files = {f"noisy/sub/{name}.jpg" if name == "b" else f"noisy/{name}.png": filed(noisy(of)) for name, of in clean.items()}
    files["noisy/sub/b.jpg"] = filed(noisy(clean["b"]), "JPEG", quality=100)
    files |= {"clean/a.png": filed(clean["a"]), "clean/sub/b.png": filed(clean["b"]), "clean/c.tif": filed(clean["c"], "TIFF")}
    files["clean/d.png"] = deep(clean["d"])
    dataset = library.of_folder(files, "paired")
    assert (library.seen(dataset)["state"], library.seen(dataset)["images"]) == ("ready", 4), library.skipped(dataset)
    index, pixels = library.stored(dataset)
    assert [stored.name for stored in index.images] == ["noisy/a.png", "noisy/c.png", "noisy/d.png", "noisy/sub/b.jpg"]
    first, _, last = index.images[:3]
    assert (pixels_of(first, pixels) == noisy(clean["a"])).all()
    assert (pixels_of(first, pixels, target=True) == clean["a"]).all()
    assert (last.channels, last.bits) == (1, 16)
    assert (pixels_of(last, pixels) == noisy(clean["d"]).astype(np.uint16) * 257).all()
    again = library.of_zip({f"pairs/{path}": data for path, data in files.items()}, "paired")
    assert library.seen(again)["sha256"] == library.seen(dataset)["sha256"]


# -- every fault at once --------------------------------------------------------------------------------------------------


def test_every_fault_of_clean_pictures_is_told_at_once_and_the_rest_is_used(library: Library) -> None:
    good = {f"{number:02}.png": filed(photo(number)) for number in range(8)}
    bad = {
        "cut.png": good["00.png"][:-20], "text.jpg": b"hello", "empty.png": b"", "small.png": filed(photo(20, 15, 40)),
        "noisy.png": filed(noisy(photo(21))), "crc.png": good["01.png"][:80] + b"\0\0\0\0" + good["01.png"][84:],
    }  # fmt: skip
    copies = {"copy.png": good["03.png"], "recompressed.jpg": filed(photo(4), "JPEG", quality=60), "half.png": filed(photo(5)[::2, ::2])}
    dataset = library.of_folder(good | bad | copies)
    assert library.seen(dataset)["state"] == "ready"
    assert library.skipped(dataset) == {
        "cut.png": "image_truncated", "text.jpg": "unsupported_format", "empty.png": "image_empty", "small.png": "image_too_small",
        "noisy.png": "image_noisy", "crc.png": "image_corrupt",
    }  # fmt: skip
    report = library.report(dataset)
    assert (report["duplicates"], [item["path"] for item in report["noisy"]]) == ([{"path": "copy.png", "of": "03.png"}], ["noisy.png"])
    assert 12 < report["noisy"][0]["sigma"] < 18
    assert sorted(map(sorted, report["near_duplicates"])) == [["04.png", "recompressed.jpg"], ["05.png", "half.png"]]
    images = {stored.name: stored for stored in library.stored(dataset)[0].images}
    keys = {name: stored.split_key for name, stored in images.items()}
    assert keys["04.png"] == keys["recompressed.jpg"] == min(images["04.png"].sha256, images["recompressed.jpg"].sha256)
    assert keys["05.png"] == keys["half.png"]
    assert len(set(keys.values())) == len(keys) - 2
    assert (report["usable"], library.seen(dataset)["report"]["skipped"]) == (10, 6)


def test_noisy_pictures_are_a_kind_of_their_own(library: Library) -> None:
    dataset = library.of_folder({f"{number}.png": filed(noisy(photo(number), 40)) for number in range(3)}, "noisy")
    assert (library.seen(dataset)["state"], library.stored(dataset)[0].kind, library.skipped(dataset)) == ("ready", "noisy", {})


def test_a_damaged_file_of_an_archive_is_skipped_and_an_archive_within_is_counted(library: Library) -> None:
    files = {**THREE, "crc.png": filed(photo(8)), "inner.zip": zipped({"x.png": png()})}
    archive = bytearray(zipped(files, zipfile.ZIP_STORED))
    archive[archive.index(files["crc.png"]) + 200] ^= 1
    dataset = library.started(library.send(bytes(archive)))
    library.work()
    assert library.skipped(dataset) == {"crc.png": "image_corrupt"}
    assert (library.report(dataset)["usable"], library.report(dataset)["ignored"]) == (3, 1)


def test_every_fault_of_pairs_is_told_at_once(library: Library) -> None:
    def pair(name: str, one: bytes, other: bytes) -> dict[str, bytes]:
        return {f"noisy/{name}.png": one, f"clean/{name}.png": other}

    wide = {number: photo(number, 160, 128) for number in range(9)}
    files: dict[str, bytes] = {}
    for number in range(5):
        files |= pair(f"good{number}", filed(noisy(wide[number])), filed(wide[number]))
    files |= pair("moved", filed(noisy(wide[5][2:, 3:])), filed(wide[5][:-2, :-3]))
    files |= pair("other size", filed(wide[6][:-1]), filed(wide[6]))
    files |= {"noisy/alone.png": filed(wide[7]), "elsewhere/b.png": filed(wide[8]), "clean/good0.jpg": filed(wide[0], "JPEG")}
    dataset = library.of_folder(files, "paired")
    assert library.skipped(dataset) == {
        "noisy/moved.png": "pair_misaligned", "noisy/other size.png": "pair_size", "noisy/alone.png": "pair_missing",
        "elsewhere/b.png": "pair_missing", "noisy/good0.png": "pair_missing", "clean/good0.png": "pair_missing",
        "clean/good0.jpg": "pair_missing",
    }  # fmt: skip
    (moved,) = library.report(dataset)["misaligned"]
    assert (round(moved["dx"]), round(moved["dy"])) == (-3, -2)
    (told,) = [item["detail"] for item in library.report(dataset)["skipped"] if item["code"] == "pair_misaligned"]
    assert "pixels further left and" in told and "further up" in told


def test_a_set_with_less_than_two_usable_pictures_or_more_bad_than_good_fails_with_its_report(library: Library) -> None:
    for files, skipped, copies in (
        ({"a.png": filed(photo(1))}, 0, 0),
        ({"a.png": filed(photo(1)), "b.png": filed(photo(1))}, 0, 1),
        ({f"{number}.png": filed(noisy(photo(number)) if number > 1 else photo(number)) for number in range(5)}, 3, 0),
    ):
        dataset = library.of_zip(files)
        seen, job = library.seen(dataset), library.job(dataset)
        assert (seen["state"], seen["error"]["code"], job.state) == ("failed", "dataset_faulty", State.FAILED)
        report = library.report(dataset)
        assert (report["counts"]["skipped"], report["counts"]["duplicates"]) == (skipped, copies)
        assert code(library.house.post(f"/v1/jobs/{job.id}/retry")) == "not_retried"
    assert library.house.files() == []
    half = library.of_zip({f"{number}.png": filed(noisy(photo(number)) if number > 1 else photo(number)) for number in range(4)})
    assert library.seen(half)["state"] == "ready", "half of them may be bad"


def test_lists_of_a_report_are_bounded_and_counts_are_whole(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "LISTED", 2)
    dataset = library.of_folder({f"{number}.png": filed(photo(number)) if number < 4 else b"x" for number in range(8)})
    report = library.report(dataset)
    assert (len(report["skipped"]), report["counts"]["skipped"]) == (2, 4)


# -- what cannot be is refused, and leaves nothing ------------------------------------------------------------------------


@pytest.mark.parametrize("what", HARM)
def test_an_archive_that_is_made_to_harm_makes_nothing_and_has_a_code_of_its_own(library: Library, what: str) -> None:
    make, expected = HARM[what]
    answer = library.send(make())
    if answer.status_code == 202:  # else the API saw it already
        dataset = library.started(answer)
        library.work()
        assert (library.seen(dataset)["state"], library.seen(dataset)["error"]["code"]) == ("failed", expected)
        told = library.house.get(f"{URL}/{dataset}/report")
        assert (told.status_code, code(told)) == (409, expected)
        assert library.house.files() == []
    else:
        assert (answer.status_code, code(answer)) == (422, expected), answer.text
        assert library.house.left_behind() == {}
        assert library.house.count(rows) == 0


def test_an_archive_of_twenty_five_thousand_files_is_looked_through_as_any_other(library: Library) -> None:
    others = {f"notes/{number}.txt": b"" for number in range(24_998)}
    archive = zipped({"a.png": filed(photo(1)), "b.png": filed(photo(2))} | others)
    form = httpx.Request("POST", f"http://localhost{URL}", data={"kind": "clean"}, files={"archive": ("a.zip", archive)})
    answer = library.house.post(URL, data=form.read(), content_type=form.headers["Content-Type"])  # Flask's client leaves large forms open
    dataset = library.started(answer)
    library.work()
    assert library.seen(dataset)["state"] == "ready"
    assert (library.report(dataset)["usable"], library.report(dataset)["ignored"]) == (2, 24_998)


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"kind": "dirty"}, 422, "invalid_field"),
        ({"kind": None}, 422, "invalid_field"),
        ({"task": "denoise"}, 422, "unknown_field"),
        ({"label": "x" * 201}, 422, "invalid_field"),
        ({"folder": "/etc"}, 403, "path_not_allowed"),
        ({"folder": "photos"}, 403, "path_not_allowed"),
        ({"folder": "{}/../photos"}, 403, "path_not_allowed"),
        ({"folder": "{}/none"}, 404, "folder_not_found"),
        ({"folder": "{}/a.png"}, 404, "folder_not_found"),
        ({"folder": "{}/link"}, 422, "link_refused"),
    ],
)
def test_what_cannot_be_is_refused_at_once_and_leaves_nothing(library: Library, body: dict[str, Any], status: int, expected: str) -> None:
    put(library.folder, THREE)
    (library.folder / "link").symlink_to(library.folder / "sub")
    if "folder" in body:
        body = {"folder": body["folder"].replace("{}", str(library.folder))}
    answer = library.house.post(URL, json={"kind": "clean", "folder": str(library.folder), **body})
    assert (answer.status_code, code(answer)) == (status, expected), answer.text
    assert library.house.left_behind() == {}
    assert library.house.count(rows) == 0


def test_of_a_form_the_same_holds(library: Library) -> None:
    archive = zipped(THREE)
    assert code(library.send(archive, kind="dirty")) == "invalid_field"
    assert code(library.send(archive, folder="/x")) == "unknown_field"
    assert code(library.send(archive, image=(io.BytesIO(b"x"), "x"))) == "unknown_field"
    assert code(library.house.post(URL, data={"kind": "clean"}, content_type="multipart/form-data")) == "invalid_field"
    assert code(library.house.post(URL, data=b"{", content_type="application/json")) == "malformed_json"
    assert (library.house.left_behind(), library.house.count(rows)) == ({}, 0)


def test_a_folder_without_pictures_fails_with_its_reason(library: Library) -> None:
    for files in ({}, {"notes.txt": b"hello"}):
        dataset = library.of_folder(dict(files))
        assert library.seen(dataset)["error"]["code"] == "folder_empty"


def test_links_and_what_cannot_be_read_are_told_of_and_never_followed(library: Library) -> None:
    put(library.folder, THREE)
    secret = put(library.folder.parent / "elsewhere", {"secret.png": filed(photo(9))})
    (library.folder / "link.png").symlink_to(secret / "secret.png")
    (library.folder / "linked").symlink_to(secret)
    dataset = library.of_folder({})
    assert library.skipped(dataset) == {"link.png": "link_refused"}
    assert library.seen(dataset)["images"] == 3


def test_where_the_pixels_do_not_fit_on_the_disk_nothing_is_written(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    put(library.folder, THREE)
    dataset = library.started(library.ask())
    with monkeypatch.context() as small:
        small.setattr("shared.disk.free", lambda _: 20_000)
        library.work()
    assert library.seen(dataset)["error"]["code"] == "disk_too_small"
    assert library.house.files() == []


def test_a_file_that_unpacks_to_too_much_is_a_bomb_and_one_with_too_many_pixels_is_skipped(tmp_path: Path) -> None:
    with open_house(tmp_path, max_upload=100_000, max_pixels=7_000) as house:
        library = Library(house, tmp_path, worker_of(house))
        assert library.seen(library.of_zip({"a.bmp": bytes(100_001)}))["error"]["code"] == "archive_bomb"
        dataset = library.of_zip({**THREE, "large.png": filed(photo(5, 100, 100))})
        assert library.skipped(dataset) == {"large.png": "too_many_pixels"}


def test_the_same_request_with_the_same_key_is_one_set(library: Library) -> None:
    put(library.folder, THREE)
    key = {"Idempotency-Key": "album"}
    first, again = (library.ask(headers=key) for _ in range(2))
    assert (first.json["id"], again.headers["Idempotent-Replayed"]) == (again.json["id"], "true")
    assert code(library.ask("noisy", headers=key)) == "idempotency_mismatch"
    other = {"Idempotency-Key": "other"}
    first, again = (library.send(zipped(THREE), headers=other) for _ in range(2))
    assert first.json["id"] == again.json["id"]
    assert code(library.send(zipped(THREE), kind="noisy", headers=other)) == "idempotency_mismatch"
    assert (library.house.count(rows), library.house.bells.early) == (2, [])


def test_each_owner_sees_their_own_sets_only(tmp_path: Path, database: str) -> None:
    with open_house(tmp_path, database, hosts="localhost,photos.local") as house:
        anna, ben = bearer(house.ports.keys.make("anna")), bearer(house.ports.keys.make("ben"))
        library = Library(house, tmp_path, worker_of(house))
        house.headers = anna
        dataset = library.of_zip(THREE)
        for address in (f"{URL}/{dataset}", f"{URL}/{dataset}/report"):
            assert code(house.get(address, headers=ben)) == "dataset_not_found"
        assert code(house.delete(f"{URL}/{dataset}", headers=ben)) == "dataset_not_found"
        assert house.get(URL, headers=ben).json["items"] == []
        assert library.seen(dataset)["state"] == "ready"
        with house.engine.begin() as connection, pytest.raises(Refused, match="unknown_dataset"):
            house.ports.datasets.held(dataset, "ben")(connection)


def test_addresses_of_no_set_are_told_so(library: Library) -> None:
    assert code(library.house.get(f"{URL}/x")) == "bad_id"
    assert code(library.house.get(f"{URL}/{uuid7()}")) == "dataset_not_found"
    assert code(library.house.get(f"{URL}?cursor=x")) in ("bad_cursor", "invalid_field")


# -- who uses a set, and how attempts end -----------------------------------------------------------------------------------


def training(library: Library, dataset: str) -> Job:
    given = {"name": "mine", "bytes": 0, "sha256": None, "format": "dataset", DATASET: dataset}
    new = NewJob(
        id=str(uuid7()), owner_id="local", kind=Kind.TRAIN, lane=Lane.TRAIN, task="denoise", model_name="mine", model_version=1,
        input=given, params={}, pixels=1, max_attempts=3, request_id="r",
    )  # fmt: skip
    return library.house.jobs.accept(new, alongside=[library.house.ports.datasets.held(dataset, "local")])


def test_a_set_is_kept_while_a_job_that_has_not_ended_names_it(library: Library) -> None:
    put(library.folder, THREE)
    dataset = library.started(library.ask())
    address = f"{URL}/{dataset}"
    refused = library.house.delete(address)
    assert (refused.status_code, code(refused), library.seen(dataset)["job"] in refused.json["detail"]) == (409, "in_use", True)
    with pytest.raises(Refused, match="dataset_not_ready") as early:
        training(library, dataset)
    assert early.value.fields == {"dataset": "not ready"}
    library.work()
    job = training(library, dataset)
    assert library.house.ports.datasets.users(dataset, "local") == [job.id]
    refused = library.house.delete(address)
    assert (code(refused), job.id in refused.json["detail"]) == ("in_use", True)
    assert library.house.post(f"/v1/jobs/{job.id}/cancel").status_code == 200
    assert library.house.delete(address).status_code == 204
    with pytest.raises(Refused, match="unknown_dataset"):
        training(library, dataset)


def test_a_set_whose_job_was_canceled_has_failed_and_its_archive_goes(library: Library) -> None:
    dataset = library.started(library.send(zipped(THREE)))
    assert library.house.post(f"/v1/jobs/{library.seen(dataset)['job']}/cancel").status_code == 200
    seen = library.seen(dataset)
    assert (seen["state"], seen["error"]) == ("failed", None)
    assert code(library.house.get(f"{URL}/{dataset}/report")) == "canceled"
    library.work()
    library.sweep()
    assert library.house.files() == []


def test_before_it_was_looked_through_there_is_no_report(library: Library) -> None:
    put(library.folder, THREE)
    answer = library.house.get(f"{URL}/{library.started(library.ask())}/report")
    assert (answer.status_code, code(answer)) == (409, "not_ready")


def test_an_attempt_that_dies_is_made_anew_and_what_it_left_is_swept(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = library.started(library.send(zipped(THREE)))
    placed = LocalDraft.place

    def dies(draft: LocalDraft, key: str) -> None:
        placed(draft, key)
        if key.endswith("pixels.1"):
            raise OSError(errno.EIO, "it died here")

    with monkeypatch.context() as dying:
        dying.setattr(LocalDraft, "place", dies)
        library.work()
    assert library.seen(dataset)["state"] == "ingesting"
    library.sweep()
    assert len(library.house.files()) == 3, "as long as it is filled, nobody knows what is needed"
    library.due()
    library.work()
    assert library.seen(dataset)["state"] == "ready"
    library.sweep()
    assert sorted(key.rsplit("/", 1)[1] for key in library.house.files()) == ["index.2", "pixels.2"]
    library.stored(dataset)


def test_a_set_that_is_canceled_while_it_is_filled_never_gets_ready(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = library.started(library.send(zipped(THREE)))
    succeeded = Jobs.succeed

    def canceled(jobs: Jobs, *arguments: Any, **options: Any) -> Any:
        assert library.house.post(f"/v1/jobs/{library.seen(dataset)['job']}/cancel").status_code == 200
        return succeeded(jobs, *arguments, **options)

    monkeypatch.setattr(Jobs, "succeed", canceled)
    library.work()
    seen = library.seen(dataset)
    assert (seen["state"], seen["sha256"], seen["report"]) == ("failed", None, None)
    library.sweep()
    assert library.house.files() == []


def test_an_attempt_that_was_taken_over_makes_nothing_ready(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    put(library.folder, THREE)
    dataset = library.started(library.ask())
    succeeded = Jobs.succeed

    def taken_over(jobs: Jobs, *arguments: Any, **options: Any) -> Any:
        assert jobs.reap(at=jobs.now() + 40_000)
        library.due()
        library.house.claim(library.seen(dataset)["job"])
        return succeeded(jobs, *arguments, **options)

    with monkeypatch.context() as frozen:
        frozen.setattr(Jobs, "succeed", taken_over)
        library.work()
    assert (library.seen(dataset)["state"], library.job(dataset).token) == ("ingesting", 2)
    assert library.house.jobs.reap(at=library.house.jobs.now() + 40_000)
    with library.house.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET due_at = 0, alone = false")
    library.work()
    assert library.seen(dataset)["state"] == "ready"
    library.sweep()
    assert sorted(key.rsplit("/", 1)[1] for key in library.house.files()) == ["index.3", "pixels.3"]


def test_a_set_whose_worker_is_lost_each_time_has_failed(library: Library) -> None:
    put(library.folder, THREE)
    dataset = library.started(library.ask())
    for _ in range(3):
        library.due()
        job = library.house.claim(library.seen(dataset)["job"])
        assert library.house.jobs.reap(at=library.house.jobs.now() + 40_000), job
    assert (library.seen(dataset)["state"], library.seen(dataset)["error"]["code"]) == ("failed", "worker_lost")


def test_a_disk_that_gets_full_meanwhile_fails_the_set_after_its_attempts_and_leaves_nothing(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(library.folder, THREE)
    dataset = library.started(library.ask())
    monkeypatch.setattr(ingesting, "disk", SimpleNamespace(free=disk.free, nearly_full=lambda _: True))
    for _ in range(3):
        library.work()
        library.due()
    assert library.seen(dataset)["error"]["code"] == "storage_full"
    assert library.house.files() == []


def test_a_zip_that_is_stored_while_it_is_sent_is_read_as_any_other(library: Library) -> None:
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as made:
        for path, data in THREE.items():
            with made.open(zipfile.ZipInfo(path), "w") as entry:
                entry.write(data)
    with archives.opened(io.BytesIO(pipe.data)) as archive:
        assert [member.path for member in archive.members] == list(THREE)
    dataset = library.started(library.send(pipe.data))
    library.work()
    assert library.seen(dataset)["state"] == "ready"
