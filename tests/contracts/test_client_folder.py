"""`lacuna folder` against the real API and a real worker's stretches of work: what a run leaves, and what the next one does."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import BaseWSGIServer, make_server

from client import folder as folder_module
from client import record
from client.cli import main
from client.http import Lacuna
from tests.contracts.api_fixtures import House, open_house
from tests.contracts.serving import worker_of
from tests.promises import wiring
from tests.promises.programs import eventually
from tests.unit.pictures import image, noise, saved


class Served:
    """An API on a port, and a worker that works whenever something waits."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.posts = 0
        self.requests = 0
        application = house.app.wsgi_app

        def counted(environ: Any, start: Any) -> Any:
            self.requests += 1
            self.posts += environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] == "/v1/restorations"
            return application(environ, start)

        house.app.wsgi_app = counted  # type: ignore[assignment, method-assign]
        self._server: BaseWSGIServer = make_server("127.0.0.1", 0, house.app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.working = threading.Event()
        self.working.set()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._server.serve_forever, self._work)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        ports = worker_of(self.house)
        while not self._ended.wait(0.02):
            if self.working.is_set():
                wiring.work(ports)
                self.house.ports.batches.fail_unlisted()
                self.house.ports.batches.finish()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["--server", self.url, *words])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    roots = f"read:{tmp_path}/in", f"read:{tmp_path}/masks", f"write:{tmp_path}/out"
    with open_house(tmp_path / "home", shipped=True, roots=roots) as house:
        server = Served(house)
        try:
            yield server
        finally:
            server.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree as people have them."""
    folder = tmp_path / "in"
    for path, kind in {
        "a.png": "PNG", "a.jpg": "JPEG", "A.png": "PNG", "sub/deep/ü b.tif": "TIFF", "sub/c.webp": "WEBP", "x" * 240 + ".bmp": "BMP",
    }.items():  # fmt: skip
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(saved(image(noise(20, 30, 3)), kind))
    for path in ("Thumbs.db", ".DS_Store", "sub/notes.txt", "sub/._c.webp"):
        (folder / path).write_bytes(b"no picture")
    return folder


def files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(record.NAME))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def contents(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in files(folder)}


def pictures(folder: Path) -> list[str]:
    return [path for path in files(folder) if Path(path).name not in ("Thumbs.db", ".DS_Store", "notes.txt", "._c.webp")]


def test_the_tree_comes_back_with_its_names_and_formats_and_the_inputs_stay_as_they_were(served: Served, source: Path) -> None:
    before = {path: (source / path).read_bytes() for path in files(source)}
    out = source.parent / "out"
    ran = served.run("folder", str(source), str(out))
    assert ran.exit_code == 0, ran.output
    assert files(out) == pictures(source)
    assert "6 pictures: 6 restored. 4 other files ignored." in ran.output
    for path in files(out):
        assert (out / path).read_bytes()[:4] == before[path][:4], "the format changed"
    assert {path: (source / path).read_bytes() for path in files(source)} == before
    (batch,) = served.house.get("/v1/batches").json["items"]
    assert batch["counts"]["total"] == batch["counts"]["succeeded"] == 6
    eventually("it ends", lambda: served.house.get(f"/v1/batches/{batch['id']}").json["state"] == "succeeded")
    rows = [json.loads(line) for line in served.run("batches", "manifest", batch["id"]).output.splitlines()]
    assert [row["path"] for row in rows] == pictures(source)


def test_a_finished_folder_again_asks_the_server_nothing(served: Served, source: Path) -> None:
    out = str(source.parent / "out")
    served.run("folder", str(source), out)
    asked = served.requests
    again = served.run("folder", str(source), out)
    assert (again.exit_code, served.requests) == (0, asked), again.output
    assert "6 pictures: 6 done before." in again.output


def test_what_changed_is_restored_again_and_what_is_new_is_added(served: Served, source: Path) -> None:
    out = source.parent / "out"
    served.run("folder", str(source), str(out))
    (source / "a.png").write_bytes(saved(image(noise(21, 30, 3))))
    (source / "new.png").write_bytes(saved(image(noise(22, 30, 3))))
    (out / "sub/c.webp").unlink()
    (out / "a.jpg").write_bytes(b"somebody else's")
    ran = served.run("folder", str(source), str(out))
    assert "7 pictures: 2 restored, 3 done before, 2 skipped, as their outputs exist." in ran.output
    assert (out / "a.jpg").read_bytes() == b"somebody else's"
    overwritten = served.run("folder", str(source), str(out), "--on-existing", "overwrite")
    assert "7 pictures: 2 restored, 5 done before." in overwritten.output
    assert (out / "a.jpg").read_bytes() != b"somebody else's"


def test_another_order_is_other_work(served: Served, source: Path) -> None:
    out = str(source.parent / "out")
    served.run("folder", str(source), out)
    ran = served.run("folder", str(source), out, "--strength", "0.5", "--on-existing", "overwrite")
    assert "6 pictures: 6 restored." in ran.output


def test_a_bad_file_is_one_failed_file_and_the_exit_status_tells(served: Served, source: Path) -> None:
    out = source.parent / "out"
    (source / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (source / "sub/cut.png").write_bytes(saved(image(noise(20, 30, 3)))[:-20])
    ran = served.run("folder", str(source), str(out))
    assert ran.exit_code == 1
    assert "8 pictures: 6 restored, 2 failed." in ran.output
    assert "bad.png: " in ran.output
    assert "sub/cut.png: The picture is cut off." in ran.output
    assert files(out) == [path for path in pictures(source) if path not in ("bad.png", "sub/cut.png")]
    again = served.run("folder", str(source), str(out))
    assert "8 pictures: 6 done before, 2 failed." in again.output


def test_formats_do_not_collide_and_what_would_is_refused(served: Served, source: Path) -> None:
    out = source.parent / "out"
    (source / "a.jpg.png").write_bytes(saved(image(noise(20, 30, 3))))
    ran = served.run("folder", str(source), str(out), "--format", "png")
    assert ran.exit_code == 1
    assert "a.jpg.png is the output of " in ran.output or "skipped" in ran.output
    assert {"a.png", "A.png", "a.jpg.png", "sub/c.webp.png", "sub/deep/ü b.tif.png"} <= set(files(out))


def test_masks_and_references_are_found_by_name(served: Served, source: Path) -> None:
    out, masks, references = (source.parent / name for name in ("out", "masks", "references"))
    mask = noise(20, 30, 1) * 0
    mask[3:6] = 255
    for path in ("a.png", "sub/c.png"):
        for folder in (masks, references):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (masks / path).write_bytes(saved(image(mask)))
        (references / path).write_bytes(saved(image(noise(20, 30, 3))))
    shutil.rmtree(source / "sub/deep")
    for path in ("a.jpg", "A.png", "x" * 240 + ".bmp"):
        (source / path).unlink()
    one = served.run("folder", str(source), str(out), "--task", "inpaint", "--mask", str(masks), "--model", "inpaint-classic")
    assert one.exit_code == 0, one.output
    assert files(out) == ["a.png", "sub/c.webp.png"]
    (source / "b.png").write_bytes(saved(image(noise(20, 30, 3))))
    missing = served.run("folder", str(source), str(out), "--task", "inpaint", "--mask", str(masks), "--model", "inpaint-classic")
    assert "b.png: " in missing.output
    assert "holds no mask for b.png" in missing.output
    compared = served.run("folder", str(source), str(out) + "2", "--references", str(references), "--json")
    told = [json.loads(line) for line in compared.output.splitlines() if line.startswith("{")]
    assert {line["path"]: line["fate"] for line in told} == {"a.png": "restored", "sub/c.webp": "restored", "b.png": "failed"}
    restored = next(line["job"] for line in told if line["path"] == "a.png")
    assert served.house.job(restored).metrics is not None


@pytest.mark.parametrize("place", ["in", "in/out", "."])
def test_outputs_within_inputs_are_refused(served: Served, source: Path, place: str) -> None:
    ran = served.run("folder", str(source), str(source.parent / place))
    assert ran.exit_code == 1
    assert "lie within each other" in ran.output
    assert files(source) == sorted([*pictures(source), "Thumbs.db", ".DS_Store", "sub/notes.txt", "sub/._c.webp"])


def test_places_that_cannot_be_used_are_told_with_a_sentence(served: Served, source: Path, tmp_path: Path) -> None:
    assert "There is no folder" in served.run("folder", str(tmp_path / "nowhere"), str(tmp_path / "out")).output
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be written" in served.run("folder", str(source), str(tmp_path / "file")).output
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / record.NAME).write_bytes(b"not a database at all, not in the least" * 100)
    assert "cannot be used" in served.run("folder", str(source), str(broken)).output
    busy = tmp_path / "busy"
    busy.mkdir()
    held = sqlite3.connect(busy / record.NAME)
    held.execute("BEGIN EXCLUSIVE")
    assert "Another run" in served.run("folder", str(source), str(busy)).output
    held.close()


def test_links_lead_nowhere(served: Served, source: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "s.png").write_bytes(saved(image(noise(20, 30, 3))))
    (source / "link").symlink_to(secret)
    (source / "link.png").symlink_to(secret / "s.png")
    out = tmp_path / "out"
    ran = served.run("folder", str(source), str(out))
    assert "6 pictures: 6 restored. 6 other files ignored." in ran.output


def test_an_empty_folder_is_nothing_to_do(served: Served, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = served.run("folder", str(tmp_path / "empty"), str(tmp_path / "out"))
    assert (ran.exit_code, served.requests) == (0, 0)
    assert "0 pictures: nothing to do." in ran.output


def test_a_server_that_never_answered_ends_the_run_at_once(source: Path) -> None:
    ran = CliRunner().invoke(main, ["--server", "http://127.0.0.1:9", "folder", str(source), str(source.parent / "out")])
    assert ran.exit_code == 3
    assert "No Lacuna answers" in ran.output


def test_a_user_who_cancels_the_batch_ends_the_run(served: Served, source: Path) -> None:
    served.working.clear()
    ended: list[Result] = []
    running = threading.Thread(target=lambda: ended.append(served.run("folder", str(source), str(source.parent / "out"))))
    running.start()
    eventually("all are sent", lambda: served.posts >= 6)
    (batch,) = served.house.get("/v1/batches").json["items"]
    served.house.post(f"/v1/batches/{batch['id']}/cancel")  # not by a command: click's runner knows one standard output at a time
    running.join(30)
    assert ended[0].exit_code == 1
    assert "canceled" in ended[0].output
    assert files(source.parent / "out") == []


def test_a_batch_that_somebody_sealed_is_left_for_one_other(served: Served, source: Path) -> None:
    for number in range(34):
        (source / f"{number:02}.png").write_bytes(saved(image(noise(20, 31 + number, 3))))
    served.working.clear()
    ended: list[Result] = []
    running = threading.Thread(target=lambda: ended.append(served.run("folder", str(source), str(source.parent / "out"))))
    running.start()
    eventually("all threads wait", lambda: served.posts >= folder_module.IN_FLIGHT)
    (batch,) = served.house.get("/v1/batches").json["items"]
    eventually("all are there", lambda: served.house.get(f"/v1/batches/{batch['id']}").json["counts"]["total"] == folder_module.IN_FLIGHT)
    assert served.house.post(f"/v1/batches/{batch['id']}/seal").status_code == 200
    served.working.set()
    running.join(60)
    assert ended[0].exit_code == 0, ended[0].output
    assert files(source.parent / "out") == pictures(source)
    totals = [batch["counts"]["total"] for batch in served.house.get("/v1/batches").json["items"]]
    assert totals == [32, 8], "several threads left it, and each left the next one too"


# werkzeug's development server, which only tests run, closes no file whose client reset the connection
kills = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def killed_in_mid_run(served: Served, source: Path, out: Path, sent: int) -> None:
    """A run of `lacuna folder` in a process of its own, that is killed when so many pictures were sent."""
    before = served.posts
    words = ["--server", served.url, "folder", str(source), str(out)]
    program = [sys.executable, "-c", "from client.cli import main; main()", *words]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually("some are sent", lambda: served.posts >= before + sent)
    process.send_signal(signal.SIGKILL)
    process.wait()


@kills
def test_a_run_that_was_killed_goes_on_and_restores_each_file_once(served: Served, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (source / f"{number:02}.png").write_bytes(saved(image(noise(20, 31 + number, 3))))
    out = source.parent / "out"
    served.working.clear()
    killed_in_mid_run(served, source, out, 5)
    assert files(out) == []
    served.working.set()
    killed_in_mid_run(served, source, out, 5)
    ran = served.run("folder", str(source), str(out))
    assert ran.exit_code == 0, ran.output
    assert files(out) == pictures(source)
    (batch,) = served.house.get("/v1/batches").json["items"]
    assert batch["counts"]["total"] == batch["counts"]["succeeded"] == 26, "a file was restored twice, or in another batch"
    undisturbed = source.parent / "undisturbed"
    assert served.run("folder", str(source), str(undisturbed)).exit_code == 0
    assert contents(out) == contents(undisturbed)


@kills
def test_a_run_that_was_killed_in_a_download_leaves_no_part_of_a_file_behind(served: Served, tmp_path: Path) -> None:
    source, out = tmp_path / "one", tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    (source / "sub/a.png").write_bytes(saved(image(noise(20, 30, 3))))
    killed = "import os, signal; os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); from client.cli import main; main()"
    command = [sys.executable, "-c", killed, "--server", served.url, "folder", str(source), str(out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    (left,) = files(out)
    assert left.startswith("sub/.lacuna-"), "it was not killed in the download: this test shows nothing"
    (source / "sub/a.png").rename(source / "b.png")  # so that nobody fetches the same again
    ran = served.run("folder", str(source), str(out))
    assert ran.exit_code == 0, ran.output
    assert files(out) == ["b.png"]


def test_an_output_that_got_there_just_before_the_kill_is_known_by_its_bytes(served: Served, source: Path) -> None:
    out = source.parent / "out"
    served.run("folder", str(source), str(out))
    with sqlite3.connect(out / record.NAME) as database:
        database.execute("UPDATE files SET out_size = NULL, out_mtime_ns = NULL")
    asked = served.requests
    again = served.run("folder", str(source), str(out))
    assert "6 pictures: 6 done before." in again.output
    assert served.requests == asked


def test_jobs_that_were_deleted_meanwhile_are_sent_anew(served: Served, source: Path) -> None:
    out = source.parent / "out"
    served.run("folder", str(source), str(out))
    for job in served.house.get("/v1/jobs?limit=100").json["items"]:
        served.house.delete(f"/v1/jobs/{job['id']}")
    shutil.rmtree(out / "sub")
    ran = served.run("folder", str(source), str(out))
    assert ran.exit_code == 0, ran.output
    assert "6 pictures: 2 restored, 4 done before." in ran.output


@kills
def test_a_file_that_changed_between_two_halves_of_a_run_is_restored_as_it_is_now(served: Served, source: Path) -> None:
    out = source.parent / "out"
    served.working.clear()
    killed_in_mid_run(served, source, out, 6)
    (source / "a.png").write_bytes(saved(image(noise(25, 35, 3))))
    served.working.set()
    ran = served.run("folder", str(source), str(out))
    assert ran.exit_code == 0, ran.output
    assert files(out) == pictures(source)
    from PIL import Image

    with Image.open(out / "a.png") as restored:
        assert restored.size == (35, 25)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("503 Service Unavailable", "shutting_down"),
        ("409 Conflict", "idempotency_in_progress"),  # for a minute after the API died that was receiving it
    ],
)
def test_a_server_that_is_away_for_a_while_is_waited_for(
    served: Served, source: Path, monkeypatch: pytest.MonkeyPatch, status: str, code: str
) -> None:
    monkeypatch.setattr(folder_module, "PAUSE_S", 0.05)
    monkeypatch.setattr("client.http.TRIES", 1)
    application, away = served.house.app.wsgi_app, iter([False] * 4 + [True] * 12)

    def flapping(environ: Any, start: Any) -> Any:
        if next(away, False):
            start(status, [("Content-Type", "application/problem+json"), ("Retry-After", "0")])
            return [json.dumps({"code": code, "title": "Not now", "detail": "Try again.", "status": int(status[:3])}).encode()]
        return application(environ, start)

    served.house.app.wsgi_app = flapping  # type: ignore[assignment, method-assign]
    ran = served.run("folder", str(source), str(source.parent / "out"))
    assert ran.exit_code == 0, ran.output
    assert files(source.parent / "out") == pictures(source)


def test_a_full_disk_is_waited_for_and_nothing_is_restored_twice(served: Served, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "PAUSE_S", 0.05)
    download, full = Lacuna.download, iter([True] * 10)

    def downloaded(self: Lacuna, job: Any, path: Path, **how: Any) -> None:
        if next(full, False):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        download(self, job, path, **how)

    monkeypatch.setattr(Lacuna, "download", downloaded)
    ran = served.run("folder", str(source), str(source.parent / "out"))
    assert ran.exit_code == 0, ran.output
    assert files(source.parent / "out") == pictures(source)
    assert served.posts == 6
    assert ran.output.count("Waiting. ") == 1, "a log was silent about what it waits for, or full of it"
    assert "No space left" in ran.output


def test_what_nobody_foresaw_ends_the_run_and_is_not_taken_for_its_end(
    served: Served, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Lacuna, "download", broken)
    ran = served.run("folder", str(source), str(source.parent / "out"))
    assert isinstance(ran.exception, ZeroDivisionError)
    (batch,) = served.house.get("/v1/batches").json["items"]
    assert batch["state"] == "open", "a run that crashed sealed its batch"


def test_an_error_of_the_server_is_that_file_s(served: Served, source: Path) -> None:
    application = served.house.app.wsgi_app

    def crashing(environ: Any, start: Any) -> Any:
        if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] == "/v1/restorations":
            start("500 Internal Server Error", [("Content-Type", "application/problem+json")])
            return [json.dumps({"code": "internal", "title": "Wrong", "detail": "Try again.", "status": 500}).encode()]
        return application(environ, start)

    served.house.app.wsgi_app = crashing  # type: ignore[assignment, method-assign]
    ran = served.run("folder", str(source), str(source.parent / "out"))
    assert ran.exit_code == 1
    assert "6 pictures: 6 failed." in ran.output


def test_with_verify_contents_count_and_not_times(served: Served, source: Path) -> None:
    out = source.parent / "out"
    served.run("folder", str(source), str(out))
    file, output = source / "a.png", out / "sub/c.webp"
    for changed in (file, output):
        before = changed.stat()
        changed.write_bytes(changed.read_bytes()[:-1] + b"!")
        os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "6 done before" in served.run("folder", str(source), str(out)).output
    assert "4 done before, 2 skipped" in served.run("folder", str(source), str(out), "--verify").output


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(served: Served, source: Path) -> None:
    out = source.parent / "out"
    ran = served.run("folder", str(source), str(out), "--dry-run")
    assert (ran.exit_code, out.exists(), served.requests) == (0, False, 0), ran.output
    assert ran.output.startswith("6 pictures to send: ")
    served.run("folder", str(source), str(out))
    (out / "a.jpg").unlink()
    assert served.run("folder", str(source), str(out), "--dry-run").output.startswith("1 picture to send: ")
    found = json.loads(served.run("folder", str(source), str(out), "--dry-run", "--json").output)
    assert found == {"pictures": 1, "bytes": (source / "a.jpg").stat().st_size, "kept": 5, "skipped": 0, "ignored": 4}


def test_a_folder_of_the_server_s_machine_is_restored_there(served: Served, source: Path) -> None:
    out = source.parent / "out"
    out.mkdir()
    order = ("folder", str(source), str(out), "--in-place")
    dry = served.run(*order, "--dry-run")
    assert (dry.exit_code, files(out)) == (0, []), dry.output
    assert dry.output.startswith("6 pictures to restore: 0.0 Mpx in ")
    ran = served.run(*order)
    assert ran.exit_code == 0, ran.output
    assert "6 pictures: 6 restored. 4 other files ignored." in ran.output
    assert files(out) == pictures(source)
    assert served.posts == 0
    again = served.run(*order)
    assert "6 pictures: 6 done before." in again.output
    (source / "bad.png").write_bytes(b"nothing")
    failed = served.run(*order)
    assert failed.exit_code == 1
    assert "7 pictures: 6 done before, 1 failed." in failed.output
    assert "bad.png: This kind of file is not restored." in failed.output
    (batch,) = served.house.get("/v1/batches?limit=1").json["items"]
    assert "bad.png: This kind of file is not restored." in served.run("batches", batch["id"]).output
    (source / "bad.png").write_bytes((source / "a.png").read_bytes())
    served.run("batches", "retry", batch["id"])
    eventually("it ends", lambda: served.house.get(f"/v1/batches/{batch['id']}").json["state"] == "succeeded")
    assert (out / "bad.png").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("{source}/none", "{out}"), "There is no such folder."),
        (("/usr", "{out}"), "This folder may not be used."),
        (("{source}", "{out}", "--pattern", "*.none"), "The folder holds no pictures."),
        (("{source}", "{out}", "--task", "inpaint"), "Inpainting needs a mask."),
    ],
)
def test_what_cannot_be_restored_in_place_is_one_sentence(served: Served, source: Path, words: tuple[str, ...], expected: str) -> None:
    out = source.parent / "out"
    out.mkdir()
    ran = served.run("folder", "--in-place", *(word.format(source=source, out=out) for word in words))
    assert ran.exit_code == 1, ran.output
    assert expected in ran.output


def test_a_run_in_place_whose_client_was_killed_is_followed_and_not_begun_again(served: Served, source: Path) -> None:
    out = source.parent / "out"
    out.mkdir()
    served.working.clear()
    order = {"folder": str(source), "out": str(out)}
    batch = served.house.post("/v1/batches", json=order).json["id"]
    threading.Timer(0.2, served.working.set).start()
    ran = served.run("folder", str(source), str(out), "--in-place")
    assert ran.exit_code == 0, ran.output
    assert f"The batch {batch} does this already." in ran.output
    assert len(served.house.get("/v1/batches").json["items"]) == 1


def test_a_run_in_place_that_does_something_else_in_the_same_folder_is_not_followed_as_if_it_did_this(served: Served, source: Path) -> None:
    out = source.parent / "out"
    out.mkdir()
    served.working.clear()
    assert served.house.post("/v1/batches", json={"folder": str(source), "out": str(out)}).status_code == 201
    for other in (["--format", "tiff"], ["--strength", "0.5"], ["--on-existing", "overwrite"], ["--model", "denoise-fast"]):
        ran = served.run("folder", str(source), str(out), "--in-place", *other)
        assert ran.exit_code == 1, ran.output
        assert "Another run writes into this folder" in ran.output


def test_a_file_whose_inode_uses_all_64_bits_is_remembered(tmp_path: Path) -> None:
    found = os.stat_result((0o100644, 1 << 63 | 7, 1, 1, 0, 0, 9, 0, 0, 0), {"st_mtime_ns": 5})
    known = record.Record(tmp_path)
    known.sent("a.png", "asked", found, "job", "0" * 64)
    assert (known.known("a.png", "asked", found) or pytest.fail("it was forgotten")).job == "job"
    known.close()
