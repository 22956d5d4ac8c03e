"""`lacuna batches zip` and `archive` against the real API and a real worker's stretches of work."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.api_fixtures import open_house, png
from tests.contracts.test_client_folder import Served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with open_house(tmp_path / "home", shipped=True) as house:
        server = Served(house)
        try:
            yield server
        finally:
            server.close()


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(f"album/{name}.png", data)
    return path


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as made:
        assert made.testzip() is None
        return made.namelist()


def test_a_zip_goes_through_the_server_and_comes_back_as_one(served: Served, tmp_path: Path) -> None:
    source = zipped(tmp_path / "holiday.zip", a=png(20, 20), b=png(30, 20))
    run = served.run("batches", "zip", str(source), "--label", "holiday")
    assert run.exit_code == 0, run.output
    out = tmp_path / "holiday.restored.zip"
    assert run.stdout.splitlines()[-2:] == [f"{source} -> {out}", "2 pictures: 2 restored."]
    assert names(out) == ["album/a.png", "album/b.png", "manifest.jsonl"]
    again = served.run("batches", "zip", str(source))
    assert (again.exit_code, len(served.house.get("/v1/batches").json["items"])) == (2, 1), (
        "what is there was replaced, or sent for nothing"
    )
    (batch,) = served.house.get("/v1/batches").json["items"]
    other = tmp_path / "other.zip"
    fetched = served.run("batches", "archive", batch["id"], "--out", str(other), "--json")
    assert json.loads(fetched.stdout)["output"] == str(other)
    assert other.read_bytes() == out.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["holiday.restored.zip", "holiday.zip", "home", "other.zip"]


def test_what_failed_is_told_by_the_exit_status_and_what_came_to_nothing_with_its_reason(served: Served, tmp_path: Path) -> None:
    run = served.run("batches", "zip", str(zipped(tmp_path / "a.zip", good=png(), torn=png()[:-9])), "-o", str(tmp_path / "out.zip"))
    assert (run.exit_code, run.stdout.splitlines()[-1]) == (1, "2 pictures: 1 restored, 1 failed.")
    assert names(tmp_path / "out.zip") == ["album/good.png", "manifest.jsonl"]
    run = served.run("batches", "zip", str(zipped(tmp_path / "b.zip", torn=png()[:-9])))
    assert (run.exit_code, run.stdout.splitlines()[-1]) == (1, "1 picture: 1 failed.")
    assert "->" not in run.stdout
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as made:
        made.writestr("../a.png", png())
    run = served.run("batches", "zip", str(tmp_path / "c.zip"))
    assert (run.exit_code, "The archive holds names that lead elsewhere. “../a.png” leads out of its folder." in run.stderr) == (1, True)
    assert not (tmp_path / "b.restored.zip").exists()
    assert served.run("batches", "zip", str(tmp_path / "none.zip")).exit_code == 2
