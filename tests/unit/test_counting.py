"""What processes count is added up, also of those that have ended."""

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from shared import metrics

COUNT = """
import sys
from pathlib import Path
from shared import events, metrics
metrics.start(Path(sys.argv[1]))
events.emit("job.failed", job_id="1", code="image_corrupt")
events.emit("job.claimed", attempts=1, lane="bulk", waited_ms=1500, ms=2)
events.emit("job.claimed", attempts=2, lane="bulk", waited_ms=9000, ms=2)
events.emit("job.succeeded", model="denoise@1", executor="openvino", seconds=0.5, pixels=2_000_000)
events.emit("job.succeeded", model="mine@1", executor=None, seconds=9, pixels=1)
"""


def counted(folder: Path) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.collect(folder).decode())
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def test_the_counts_of_all_processes_are_added_up_and_outlive_them(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", COUNT, str(tmp_path / "metrics")], check=True, capture_output=True)
    found = counted(tmp_path / "metrics")
    assert found["lacuna_jobs_failed_total", (("code", "image_corrupt"),)] == 2
    assert found["lacuna_events_total", (("event", "job.claimed"),)] == 4
    assert found["lacuna_claim_seconds_count", ()] == 4
    assert found["lacuna_wait_seconds_sum", (("lane", "bulk"),)] == 3, "only the first claim ends the wait"
    pace = (("executor", "openvino"), ("model", "denoise@1"))
    assert found["lacuna_seconds_per_megapixel_sum", pace] == 0.5
    assert found["lacuna_jobs_succeeded_total", (("model", "mine@1"),)] == 2
    assert not [labels for name, labels in found if name.startswith("lacuna_seconds") and ("model", "mine@1") in labels]


MANY = """
import resource, sys
from pathlib import Path
from shared import events, metrics
metrics.start(Path(sys.argv[1]))
if sys.argv[2]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
for number in range(2000):
    events.emit("job.failed", job_id="1", code=f"code-{number}")
"""


def counting(folder: Path, most_bytes: int | None = None) -> None:
    subprocess.run([sys.executable, "-c", MANY, str(folder), str(most_bytes or "")], check=True, capture_output=True)


def test_what_is_counted_has_its_space_on_the_disk(tmp_path: Path) -> None:
    counting(tmp_path)
    files = list(tmp_path.glob("*.db"))
    assert max(file.stat().st_size for file in files) > metrics.FILE_BYTES, "none of them grew"
    for file in files:
        assert file.stat().st_blocks * 512 >= file.stat().st_size, "mapped without space, a full disk would end who counts by SIGBUS"
    assert sum(value for (name, _), value in counted(tmp_path).items() if name == "lacuna_jobs_failed_total") == 2000


def test_where_there_is_no_space_to_count_nothing_else_fails(tmp_path: Path) -> None:
    counting(tmp_path, most_bytes=metrics.FILE_BYTES)
    assert 0 < sum(value for (name, _), value in counted(tmp_path).items() if name == "lacuna_jobs_failed_total") < 2000


def test_a_process_without_any_space_runs_and_leaves_no_file(tmp_path: Path) -> None:
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))" + COUNT
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True)
    assert not list(tmp_path.glob("*.db"))


def test_before_anything_was_counted_there_is_nothing(tmp_path: Path) -> None:
    assert counted(tmp_path / "metrics") == {}


def test_what_was_counted_long_ago_is_forgotten(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", COUNT, str(tmp_path)], check=True, capture_output=True)
    metrics.forget(tmp_path)
    assert counted(tmp_path)
    for file in tmp_path.glob("*.db"):
        os.utime(file, (0, 0))
    metrics.forget(tmp_path)
    assert counted(tmp_path) == {}


def test_a_process_that_lives_may_have_nothing_to_count_for_long(tmp_path: Path) -> None:
    mine = tmp_path / f"counter_{metrics.HOST}-{os.getpid()}.db"
    mine.touch()
    os.utime(mine, (0, 0))
    metrics.forget(tmp_path)
    assert mine.exists()
