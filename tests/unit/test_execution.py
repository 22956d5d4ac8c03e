"""Where exported networks come from, what happens when they are missing or broken, and which executor runs."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared import children, events
from shared.errors import Fault, Refused, Transient
from shared.models import manifest, registry
from trainer import networks
from trainer.execution import cache, choice, export, openvino, tensorflow
from trainer.execution.export import Exported, Inexpressible

SHIPPED = registry.shipped_artifact("denoise", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network, exported once by the real child."""
    folder = tmp_path_factory.mktemp("exported") / "network"
    export.make(SHIPPED, folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The shipped model without anything exported beside its weights."""
    return shutil.copytree(SHIPPED, tmp_path / "denoise@1", ignore=shutil.ignore_patterns(export.FOLDER))


@pytest.fixture
def exports(made: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were exported into; each is a copy of the one real export, which takes seconds."""
    calls: list[Path] = []

    def copy(_: Path, folder: Path, look: object) -> None:
        calls.append(folder)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)

    monkeypatch.setattr(export, "make", copy)
    return calls


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(events, "emit", lambda name, **_: names.append(name))
    return names


def exported(model: Path, cached: Path) -> Exported:
    found = cache.exported(model, cached)
    assert found.network.exists()
    return found


def test_what_lies_beside_the_weights_is_used_as_it_is(model: Path, made: Path, tmp_path: Path, exports: list[Path]) -> None:
    shutil.copytree(made, model / export.FOLDER)
    assert exported(model, tmp_path / "cache").network.parent == model / export.FOLDER
    assert not exports
    assert not (tmp_path / "cache").exists()


def test_what_is_missing_is_made_once_and_kept(model: Path, tmp_path: Path, exports: list[Path]) -> None:
    first, second = exported(model, tmp_path / "cache"), exported(model, tmp_path / "cache")
    assert first == second
    assert len(exports) == 1


@pytest.mark.parametrize("name", [export.RECORD, *export.FILES])
@pytest.mark.parametrize("harm", ["gone", "cut", "flipped"])
@pytest.mark.parametrize("where", ["in the cache", "beside the weights"])
def test_what_is_damaged_is_made_anew(
    where: str, harm: str, name: str, model: Path, made: Path, tmp_path: Path, exports: list[Path]
) -> None:
    place = exported(model, tmp_path / "cache").network.parent
    if where == "beside the weights":
        place = shutil.copytree(made, model / export.FOLDER)
        shutil.rmtree(tmp_path / "cache")
    path = place / name
    data = bytearray(path.read_bytes())
    middle = data.index(b'"network.xml": "') + 20 if name == export.RECORD else len(data) // 2
    data[middle] ^= 1
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(data if harm == "flipped" else data[: len(data) // 2])
    found = exported(model, tmp_path / "cache")
    assert len(exports) == 2
    assert export.read(found.network.parent, manifest.read(model)) == found


def test_what_another_exporter_made_or_from_other_weights_is_made_anew_and_the_old_goes(
    model: Path, tmp_path: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = exported(model, tmp_path / "cache").network.parent
    monkeypatch.setattr(export, "exporter", lambda: "2-another")
    assert export.read(old, manifest.read(model)) is None
    with pytest.raises(Fault, match="does not read back"):  # the copy says that it is of the old exporter
        exported(model, tmp_path / "cache")
    assert not old.exists()
    other = manifest.read(model).model_copy(update={"weights_sha256": "f" * 64})
    assert export.read(exports[0], other) is None


def test_two_workers_that_want_one_at_once_make_one(model: Path, tmp_path: Path, exports: list[Path]) -> None:
    found: list[Exported] = []
    threads = [threading.Thread(target=lambda: found.append(exported(model, tmp_path / "cache"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exports) == 1
    assert len(found) == 4
    assert len(set(map(str, found))) == 1


def test_what_a_killed_export_left_is_cleared_away(model: Path, tmp_path: Path, exports: list[Path]) -> None:
    left = tmp_path / "cache" / ".export-killed" / "done"
    left.mkdir(parents=True)
    exported(model, tmp_path / "cache")
    assert not left.parent.exists()


def test_without_tensorflow_what_is_not_exported_says_what_to_do(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "tensorflow_installed", lambda: False)
    with pytest.raises(Fault, match="python -m trainer export") as refused:
        exported(model, tmp_path / "cache")
    assert refused.value.code == "artifact_invalid"


def test_a_full_disk_is_a_passing_failure_and_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "python", lambda *_: [sys.executable, "-c", "import errno, sys; sys.exit(errno.ENOSPC)"])
    with pytest.raises(Transient) as passing:
        exported(model, tmp_path / "cache")
    assert passing.value.code == "storage_full"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import os; os.kill(os.getpid(), 9)", "out_of_memory"),
        ("raise SystemExit(3)", "internal"),
        ("import time; time.sleep(600)", "timed_out"),
    ],
)
def test_an_export_that_dies_or_lasts_too_long_says_so_and_leaves_nothing(
    program: str, code: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EXPORT_SECONDS", 2.0 if code == "timed_out" else 60.0)
    monkeypatch.setattr(children, "python", lambda *_: [sys.executable, "-c", program])
    with pytest.raises(Fault) as fault:
        exported(model, tmp_path / "cache")
    assert fault.value.code == code
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def _opaque(config: Any, precision: str, dropout: float = 0.0) -> Any:
    """The network as Keras has it, with a step that only Python can do."""
    import keras
    import tensorflow as tf

    class Opaque(keras.layers.Layer):  # type: ignore[misc]
        def call(self, given: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(lambda values: values, [given], tf.float32), given.shape)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    model = networks.unet.build(config, precision)
    return keras.Model(model.inputs, Opaque(name="opaque")(model.outputs[0]))


def test_a_network_that_openvino_cannot_express_is_told_from_one_that_it_can(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = networks.ARCHITECTURES["unet"]
    opaque = networks.Architecture(known.config, _opaque, known.multiple, known.halo, known.bytes_per_pixel)
    monkeypatch.setitem(networks.ARCHITECTURES, "unet", opaque)
    record = export._export(model, tmp_path)
    assert record.inexpressible
    assert record.files == {}


def test_a_network_that_says_something_else_than_keras_does_not_count(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_difference", lambda *_: float("nan"))
    assert "differs from the Keras network" in export._export(model, tmp_path).inexpressible


class Constant:
    """In the place of an exported network."""

    multiple, halo = 8, 8

    def __init__(self, value: float) -> None:
        self.value = value

    def run(self, *inputs: Any) -> Any:
        return np.full_like(inputs[0], self.value)


def keras_that_gives(value: float) -> Any:
    """In the place of the Keras network."""

    class Given:
        shape = (None, None, None, 3)

    class Network:
        inputs = (Given,)

        def __call__(self, given: Any, training: bool) -> Any:
            return np.full_like(given, value)

    return Network()


def test_what_only_openvino_makes_no_number_differs_and_what_keras_does_is_refused() -> None:
    assert not export._difference(keras_that_gives(1.0), Constant(float("nan"))) <= export.TOLERANCE  # type: ignore[arg-type]
    with pytest.raises(Refused, match="no numbers"):
        export._difference(keras_that_gives(float("nan")), Constant(float("nan")))  # type: ignore[arg-type]


@pytest.mark.parametrize(("enough", "expected"), [(8, 8), (24, 24), (40, 40), (64, 64), (1000, 64)])
def test_the_halo_is_the_smallest_that_agrees_and_never_more_than_a_pixel_depends_on(
    enough: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Constant(0.0)
    network.halo = 32
    tried: list[int] = []

    def psnr(_: Any, __: Any, ___: Any, halo: int, ____: int) -> float:
        tried.append(halo)
        return 90.0 if halo >= enough else 50.0

    monkeypatch.setattr(export, "_tiled_psnr", psnr)
    halo, agreed = export._agreed_halo(network, [3])  # type: ignore[arg-type]
    assert halo == expected
    assert (agreed >= export.AGREED_DB) == (enough <= 64)
    assert len(tried) == len(set(tried)) <= 6


def test_a_network_that_is_loaded_is_had_at_once_while_another_is_being_loaded(tmp_path: Path) -> None:
    from tests.promises.wiring import Identity
    from worker.wiring import Networks

    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def load(self, artifact: Path, look: Any = None) -> Any:
            if artifact.name == "slow":
                begun.set()
                assert go_on.wait(60)
            return Identity()

        def describe(self) -> Any:
            return Identity.described

    loaded = Networks(Slow(), lambda name, _: tmp_path / name, 1 << 30)
    first = loaded.get("quick", 1)
    loading = threading.Thread(target=lambda: loaded.get("slow", 1), daemon=True)
    loading.start()
    assert begun.wait(60)
    had: list[object] = []
    asking = threading.Thread(target=lambda: had.append(loaded.get("quick", 1)), daemon=True)
    asking.start()
    asking.join(30)
    go_on.set()
    loading.join(60)
    assert had == [first]


def test_the_networks_used_last_are_kept_and_no_more(tmp_path: Path) -> None:
    from tests.promises.wiring import Identity
    from worker import wiring

    loads: list[str] = []

    class Counting:
        def load(self, artifact: Path, look: Any = None) -> Any:
            loads.append(artifact.name)
            return Identity()

        def describe(self) -> Any:
            return Identity.described

    loaded = wiring.Networks(Counting(), lambda name, _: tmp_path / name, 1 << 30)
    names = [f"m{number}" for number in range(wiring.KEPT)]
    for name in [*names, names[0], "one more", names[0], names[1]]:
        loaded.get(name, 1)
    assert loads == [*names, "one more", names[1]], "the one used last was dropped, or more are kept than said"


def test_what_openvino_cannot_run_runs_on_tensorflow_and_is_said_once(
    model: Path, made: Path, tmp_path: Path, exports: list[Path], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path, folder: Path, look: object) -> None:
        exports.append(folder)
        record = json.loads((made / export.RECORD).read_bytes())
        folder.mkdir(parents=True)
        (folder / export.RECORD).write_text(json.dumps(record | {"files": {}, "inexpressible": "no such operation"}))

    monkeypatch.setattr(export, "make", refuse)
    from worker.wiring import Networks

    loaded = Networks(openvino.OpenVinoExecutor(tmp_path / "cache"), lambda *_: model, 1 << 30)
    assert [loaded.get("denoise", 1).described.executor for _ in range(3)] == ["tensorflow"] * 3
    assert said == ["model.exporting", "executor.fell_back", "model.loaded"]
    with pytest.raises(Inexpressible, match="no such operation"):
        exported(model, tmp_path / "cache")
    assert len(exports) == 1, "it is tried again at each start"


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512bw\n", False),  # OpenVINO would emulate it there
        ("Features\t: fp asimd bf16\n", False),
        ("", False),
    ],
)
def test_bfloat16_is_used_only_where_the_processor_has_it(
    cpuinfo: str, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert openvino.native_bfloat16(tmp_path / "cpuinfo") is native
    assert not openvino.native_bfloat16(tmp_path / "no such file")
    monkeypatch.setattr(openvino, "native_bfloat16", lambda: native)
    assert openvino.OpenVinoExecutor(tmp_path).describe().precision == ("bfloat16" if native else "float32")


@pytest.mark.parametrize(
    ("setting", "has_openvino", "has_tensorflow", "has_gpu", "expected"),
    [
        ("auto", True, True, False, "OpenVinoExecutor"),
        ("auto", True, True, True, "TensorFlowExecutor"),
        ("auto", True, False, True, "OpenVinoExecutor"),
        ("auto", False, True, False, "TensorFlowExecutor"),
        ("auto", False, False, False, "Neither OpenVINO nor TensorFlow is installed"),
        ("openvino", True, True, True, "OpenVinoExecutor"),
        ("openvino", False, True, False, "OpenVINO is not installed.*LACUNA_EXECUTOR=tensorflow"),
        ("tensorflow", True, True, False, "TensorFlowExecutor"),
        ("tensorflow", True, False, False, "TensorFlow is not installed.*LACUNA_EXECUTOR=openvino"),
    ],
)
def test_the_executor_is_the_settings_and_else_the_one_that_suits_the_machine(
    setting: str, has_openvino: bool, has_tensorflow: bool, has_gpu: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "installed", lambda: has_openvino)
    monkeypatch.setattr(tensorflow, "installed", lambda: has_tensorflow)
    monkeypatch.setattr(tensorflow, "has_gpu", lambda: has_gpu)
    if expected.endswith("Executor"):
        assert type(choice.choose(setting, tmp_path)).__name__ == expected
    else:
        with pytest.raises(choice.CannotRun, match=expected):
            choice.choose(setting, tmp_path)


SPY = """
import os, socket
def tell(what):
    with open(os.environ["SPY"], "a") as file:
        file.write(what + "\\n")
def watched(name, call):
    def told(*arguments, **options):
        tell(f"{name} {arguments[-1]}")
        return call(*arguments, **options)
    return told
socket.socket.connect = watched("connect", socket.socket.connect)
socket.getaddrinfo = watched("look up", socket.getaddrinfo)
"""


@pytest.mark.parametrize("what", ["exporting", "serving"])
def test_nothing_is_told_to_anyone_also_where_no_ci_hides_it(what: str, made: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SPY)
    environ = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environ |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}", "HOME": str(tmp_path / "home"), "SPY": str(tmp_path / "told")}
    (tmp_path / "home").mkdir()
    if what == "exporting":
        argv = children.python("trainer.execution.export", str(SHIPPED), str(tmp_path / "out"))
        environ["KERAS_HOME"] = str(tmp_path / "keras")
    else:
        code = f"""
from pathlib import Path
from trainer.execution import export
from trainer.execution.openvino import OpenVinoNetwork
record = export.Record(**__import__("json").loads(Path({str(made)!r}, export.RECORD).read_bytes()))
network = OpenVinoNetwork(export.Exported(Path({str(made)!r}, export.NETWORK), record), "float32")
network.run(*export.sample([3], 16, 16))
import sys
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras", "safetensors")]
"""
        argv = [sys.executable, "-c", code]
    ran = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not (tmp_path / "told").exists(), (tmp_path / "told").read_text()
    assert list((tmp_path / "home").iterdir()) == []


MANY_SIZES = """
import sys
from pathlib import Path
import numpy as np
from trainer.execution.openvino import OpenVinoExecutor
network = OpenVinoExecutor(Path("/nowhere")).load(Path(sys.argv[1]))
def resident():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))
sizes = [(1, 8 * height, 8 * width, 3) for height in range(1, 16) for width in range(1, 15)]
for number, size in enumerate([(1, 256, 256, 3), *sizes]):
    network.run(np.zeros(size, np.float32))
    if number == 40:
        early = resident()
print(resident() - early)
"""


def test_what_a_network_keeps_of_the_sizes_it_saw_is_bounded() -> None:
    """170 sizes more: with what OpenVINO keeps by default they take 200 MB more, and a night of scans a gigabyte."""
    argv = [sys.executable, "-c", MANY_SIZES, str(SHIPPED)]
    grown = float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert grown < 60
