"""`lacuna datasets` against the real API and a real worker's stretches of work."""

import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.errors import ClientError, Stopped
from client.zipping import pictures, zipped
from tests.contracts.api_fixtures import open_house
from tests.contracts.photos import noisy, packed, photo, put
from tests.contracts.test_client_folder import Served

FILES = {f"{number}.png": packed(photo(number)) for number in range(4)} | {"sub/ü.jpg": packed(photo(9), "JPEG"), "notes.txt": b"hello"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with open_house(tmp_path / "home", shipped=True, roots=(f"read:{tmp_path}/in",)) as house:
        server = Served(house)
        try:
            yield server
        finally:
            server.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "in", FILES)


def test_a_folder_is_sent_and_becomes_a_set_and_so_does_a_zip_and_a_folder_in_place(served: Served, source: Path, tmp_path: Path) -> None:
    ran = served.run("datasets", "add", str(source), "--kind", "clean", "--label", "holiday")
    assert ran.exit_code == 0, ran.output
    (line,) = ran.stdout.splitlines()
    dataset = line.split()[0]
    assert line == f"{dataset}  ready  5 pictures, 0.0 Mpx in 94 kB"
    assert ran.stderr.splitlines()[:2] == ["Sending 5 pictures, " + ran.stderr.splitlines()[0].split(", ")[1], "1 other file ignored"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for path, data in FILES.items():
            made.writestr(path, data)
    again = served.run("datasets", "add", str(tmp_path / "a.zip"), "--kind", "clean", "--json")
    assert json.loads(again.stdout)["state"] == "ready"
    in_place = served.run("datasets", "add", str(source), "--kind", "clean", "--in-place", "--json")
    shas = {json.loads(run.stdout)["sha256"] for run in (again, in_place, served.run("datasets", dataset, "--json"))}
    assert len(shas) == 1
    listed = served.run("datasets").stdout.splitlines()
    assert (len(listed), listed[0].split()) == (4, ["ID", "STATE", "KIND", "LABEL", "IMAGES", "MPX", "SIZE", "AGE"])
    assert served.run("datasets", "list", "--limit", "1").stdout.split()[8:9] == listed[1].split()[:1]
    assert "found     5 of 5 usable\n" in served.run("datasets", "show", dataset).stdout
    gone = served.run("datasets", "delete", dataset)
    assert (gone.exit_code, gone.stdout) == (0, f"{dataset}  deleted\n")
    missing = served.run("datasets", dataset)
    assert (missing.exit_code, "There is no such data set" in missing.stderr) == (1, True)


def test_what_is_left_out_is_named_and_a_set_that_failed_says_why(served: Served, source: Path) -> None:
    put(source, {"torn.png": FILES["0.png"][:-20], "copy.png": FILES["1.png"]})
    ran = served.run("datasets", "add", str(source), "--kind", "clean")
    dataset = ran.stdout.split()[0]
    assert (ran.exit_code, "torn.png: " in ran.stderr) == (0, True)
    assert f"All that was found: lacuna datasets report {dataset}" in ran.stderr
    assert ran.stdout.endswith("1 left out, 1 exact copy, 1 other file ignored\n") or "left out" in ran.stdout
    told = served.run("datasets", "report", dataset).stdout
    assert "found     5 of 7 usable, 1 left out, 1 exact copy" in told
    assert "copy.png is a copy of 1.png" in told
    for number in range(4):
        (source / f"{number}.png").write_bytes(packed(noisy(photo(number))))
    failed = served.run("datasets", "add", str(source), "--kind", "clean")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "0.png: Even its flattest parts have noise of about σ 1" in failed.stderr
    assert "Too much of the data set cannot be used. Of 7 pictures" in failed.stderr


def test_what_cannot_be_sent_is_said_before_anything_is(served: Served, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = served.run("datasets", "add", str(tmp_path / "empty"), "--kind", "clean")
    assert (ran.exit_code, "holds no pictures" in ran.stderr) == (1, True)
    assert served.run("datasets", "add", str(tmp_path / "none"), "--kind", "clean").exit_code == 2
    assert served.run("datasets", "add", str(tmp_path / "empty")).exit_code == 2
    assert served.run("datasets", "--limit", "3", "list").exit_code == 2
    assert served.run("datasets").stderr == "There are no data sets.\n"
    assert served.house.get("/v1/datasets").json["items"] == []


def test_the_zip_of_a_folder_is_the_same_each_time_and_ends_when_it_is_stopped(source: Path) -> None:
    heard: list[int] = []
    found, stopped = pictures(source), threading.Event()

    def whole(size: int) -> bytes:
        with zipped(found, heard.append, stopped) as file:
            return b"".join(iter(lambda: file.read(size), b""))

    assert whole(7) == whole(1 << 20)
    assert heard[-1] == found.bytes == sum(len(data) for path, data in FILES.items() if path != "notes.txt")
    (source / "made.zip").write_bytes(whole(1000))
    with zipfile.ZipFile(source / "made.zip") as made:
        assert made.testzip() is None
        assert {info.filename: info.compress_type for info in made.infolist()} == dict.fromkeys(found.paths, 0)
    stopped.set()
    with pytest.raises(Stopped):
        whole(1000)
    (source / "0.png").unlink()
    stopped.clear()
    with pytest.raises(ClientError, match="There is no such file"):
        whole(1000)
