"""`make bench`: what runs networks, beside the limit of this machine, in one run.

The limit is the best product of two 2048 × 2048 matrices that OpenVINO or TensorFlow reaches here in the same precision:
plain convolutions are such products. Both sides of every comparison alternate; medians are shown, ranges are in the JSON.
Let the machine do nothing else.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.pairs import Timed, alternate
from shared.models import registry
from shared.models.manifest import Manifest
from trainer import artifact, networks
from trainer.execution import Executor, Network, cache, export
from trainer.execution.openvino import OpenVinoExecutor, library, native_bfloat16
from trainer.execution.tensorflow import TensorFlowExecutor

SIZES = ((512, 512), (321, 481))
SIDE = 2048
DNCNN = "dncnn-17"


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--calls", default=2000, show_default=True, help="Calls of random sizes for the memory figure; 0 leaves it out.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there too.")
def main(rounds: int, calls: int, json_path: Path | None) -> None:
    """Measure the executors on this machine."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="lacuna-bench-") as folder:
        found: dict[str, Any] = {"machine": _machine()}
        _say_machine(found["machine"])
        precisions = ["float32", "bfloat16"] if native_bfloat16() else ["float32"]
        if len(precisions) == 1:
            print("This processor has no bfloat16 of its own: everything runs in float32.\n")
        found["gemm"] = _gemm(precisions, rounds)
        models = {
            shipped.reference: registry.shipped_artifact(shipped.name, shipped.version)
            for shipped in registry.shipped()
            if shipped.parameters
        }
        models[DNCNN] = _dncnn(Path(folder) / f"{DNCNN}@1")
        found["speed"] = _speed(models, Path(folder) / "networks", precisions, rounds, found["gemm"])
        found["start"] = _start(next(iter(models.values())), rounds)
        found["worker"] = _worker(rounds)
        found["shapes"] = _shapes(next(iter(models.values())), Path(folder) / "networks", precisions[-1])
        if calls:
            found["memory"] = _memory(next(iter(models.values())), calls)
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _machine() -> dict[str, Any]:
    cpu = library().Core().get_property("CPU", "FULL_DEVICE_NAME")
    versions = {name: version(name) for name in ("openvino", "tensorflow-cpu", "keras")}
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(), "bfloat16": native_bfloat16(), **versions}


def _say_machine(machine: dict[str, Any]) -> None:
    print(f"{machine['cpu']}, {machine['cores']} cores; OpenVINO {machine['openvino']}, TensorFlow {machine['tensorflow-cpu']}\n")


def _gemm(precisions: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """GFLOP/s of a matrix product, by precision and library."""
    import tensorflow as tf

    def by_openvino(precision: str) -> Callable[[], object]:
        ov = library()
        left, right = (ov.opset13.parameter([SIDE, SIDE], ov.Type.f32) for _ in range(2))
        model = ov.Model([ov.opset13.matmul(left, right, False, False)], [left, right])
        hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
        request = ov.Core().compile_model(model, "CPU", hint).create_infer_request()
        matrices = [np.random.default_rng(seed).random((SIDE, SIDE), dtype=np.float32) for seed in range(2)]
        return lambda: request.infer(matrices, share_inputs=True)

    def by_tensorflow(precision: str) -> Callable[[], object]:
        kind = tf.bfloat16 if precision == "bfloat16" else tf.float32
        left, right = (tf.cast(np.random.default_rng(seed).random((SIDE, SIDE), dtype=np.float32), kind) for seed in range(2))
        return lambda: tf.linalg.matmul(left, right).numpy()

    print(f"Matrix product {SIDE}³, GFLOP/s\n")
    found: dict[str, dict[str, Any]] = {}
    for precision in precisions:
        timed = alternate({"openvino": by_openvino(precision), "tensorflow": by_tensorflow(precision)}, 3 * rounds)
        rates = {name: 2 * SIDE**3 / 1e9 / min(taken.seconds) for name, taken in timed.items()}
        found[precision] = {**rates, "best": max(rates.values())}
        print(f"  {precision:<9} OpenVINO {rates['openvino']:6.0f}   TensorFlow {rates['tensorflow']:6.0f}")
    print()
    return found


def _dncnn(folder: Path) -> Path:
    """DnCNN-17 with random weights: what it costs does not depend on them."""
    model = networks.build("dncnn", {})
    generator = np.random.default_rng(0)
    weights = {variable.path: generator.normal(0, 0.05, tuple(variable.shape)).astype(np.float32) for variable in model.variables}
    described = Manifest(
        schema=1, name=DNCNN, version=1, task="denoise", architecture="dncnn", config={}, weights_sha256="0" * 64,
        parameters=model.count_params(), created_at="2026-01-01T00:00:00Z", base=None, recipe={}, data=[], metrics={}, licence="",
    )  # fmt: skip
    artifact.publish(folder, weights, described)
    return folder


def _gflop_per_mpx(model: Path, cached: Path) -> float:
    """Of all convolutions, read off the exported graph at 512 × 512."""
    exported = library().Core().read_model(cache.exported(model, cached).network)
    exported.reshape([1, 512, 512, 3])
    multiplications = 0
    for node in exported.get_ops():
        if node.get_type_name() in ("Convolution", "ConvolutionBackpropData"):
            kernel = list(node.input_value(1).get_shape())
            # each value of the output (of the input, where it is transposed) meets each weight of the kernel once
            side = node.output(0) if node.get_type_name() == "Convolution" else node.input_value(0)
            multiplications += int(np.prod(kernel)) * int(np.prod(side.get_shape()[2:]))
    return 2 * multiplications / 1e9 / (512 * 512 / 1e6)


def _speed(models: dict[str, Path], cached: Path, precisions: list[str], rounds: int, gemm: dict[str, Any]) -> list[dict[str, Any]]:
    print("Seconds per Mpx, and the share of the matrix product's speed\n")
    print(f"  {'model':<11} {'precision':<9} {'size':<9} {'OpenVINO':>16} {'TensorFlow':>16}  TF / OV")
    rows = []
    for name, model in models.items():
        cost = _gflop_per_mpx(model, cached)
        for precision in precisions:
            executors: dict[str, Executor] = {"openvino": OpenVinoExecutor(cached, precision), "tensorflow": TensorFlowExecutor(precision)}
            loaded: dict[str, Network] = {key: executor.load(model) for key, executor in executors.items()}
            for height, width in SIZES:
                (picture,) = export.sample([3], height, width)
                timed = alternate({key: _call(network, picture) for key, network in loaded.items()}, rounds)
                row: dict[str, Any] = {"model": name, "precision": precision, "height": height, "width": width, "gflop_per_mpx": cost}
                for key, taken in timed.items():
                    per_mpx = Timed([seconds / (height * width / 1e6) for seconds in taken.seconds])
                    row[key] = {**per_mpx.json(), "share": cost / per_mpx.median / gemm[precision]["best"]}
                rows.append(row)
                sides = "  ".join(f"{row[key]['median']:7.3f} {row[key]['share']:6.0%}" for key in ("openvino", "tensorflow"))
                ratio = row["tensorflow"]["median"] / row["openvino"]["median"]
                print(f"  {name:<11} {precision:<9} {width} × {height}  {sides}   {ratio:4.2f} ×")
    for precision in precisions:
        at = {row["model"]: row["openvino"]["median"] for row in rows if (row["precision"], row["width"]) == (precision, 512)}
        first = next(iter(models))
        print(f"\n  {first} does {at[DNCNN] / at[first]:.1f} × the Mpx/s of DnCNN-17 (OpenVINO, {precision}, 512 × 512).")
    print()
    return rows


def _call(network: Network, picture: Any) -> Callable[[], object]:
    return lambda: network.run(picture)


COLD = """
import sys, time
from pathlib import Path
from trainer.execution.{module} import {executor}
network = {executor}({argument}).load(Path(sys.argv[1]))
loaded = time.time()
def status(name):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(name))
idle = status("VmRSS")
from trainer.execution import export
(picture,) = export.sample([3], 512, 512)
began = time.time()
network.run(picture)
print(loaded, time.time() - began, idle, status("VmHWM"))
"""


def _start(model: Path, rounds: int) -> dict[str, Any]:
    """A fresh process: seconds until the network is loaded, of the first call at 512 × 512, and memory in MB."""
    print("A fresh process (files in the page cache)\n")
    print(f"  {'':<10} {'loaded':>8} {'first call':>11} {'idle':>8} {'at most':>9}")
    found = {}
    sides = {"openvino": ("OpenVinoExecutor", 'Path("/nowhere")'), "tensorflow": ("TensorFlowExecutor", "")}
    runs: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, (executor, argument) in sides.items():
            code = COLD.format(module=name, executor=executor, argument=argument)
            began = time.time()
            ran = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True)
            loaded, first, idle, most = (float(word) for word in ran.stdout.split()[-4:])
            runs[name].append([loaded - began, first, idle, most])
    for name, taken in runs.items():
        loaded, first, idle, most = (statistics.median(column) for column in zip(*taken[1:], strict=True))
        found[name] = {"loaded_s": loaded, "first_call_s": first, "idle_mb": idle, "most_mb": most}
        print(f"  {name:<10} {loaded:>6.2f} s {first:>9.2f} s {idle:>5.0f} MB {most:>6.0f} MB")
    print()
    return found


def _worker(rounds: int) -> dict[str, Any]:
    """A worker process with a job waiting: seconds from its start until the job's network is loaded; MB when idle again."""
    from benchmarks.home import Home

    ready, idle = [], []
    for _ in range(rounds + 1):
        with Home() as home:
            job_id = home.submit(64, 64)
            began = time.time()
            worker = home.start("worker.app", "worker")
            home.wait(job_id)
            ready.append(home.logged("model.loaded") - began)
            idle.append(home.memory_mb(worker))
    found = {"ready_s": statistics.median(ready[1:]), "idle_mb": statistics.median(idle[1:])}
    print(f"A worker is ready {found['ready_s']:.2f} s after its process starts, and takes {found['idle_mb']:.0f} MB when idle.\n")
    return found


def _shapes(model: Path, cached: Path, precision: str) -> dict[str, Any]:
    """The first call with a size that was never seen, beside a second one."""
    generator = np.random.default_rng(0)
    sizes = [tuple(int(side) for side in generator.integers(256, 624, 2)) for _ in range(30)]
    found = {}
    print("A size that was never seen, beyond a second call with it\n")
    executors: dict[str, Executor] = {"openvino": OpenVinoExecutor(cached, precision), "tensorflow": TensorFlowExecutor(precision)}
    for name, executor in executors.items():
        network = executor.load(model)
        network.run(*export.sample([3], 640, 640))
        more = []
        for height, width in sizes:
            (picture,) = export.sample([3], height, width)
            first, second = _once(network, picture), _once(network, picture)
            more.append(first - second)
        found[name] = {"median_ms": statistics.median(more) * 1000, "most_ms": max(more) * 1000}
        print(f"  {name:<10} {found[name]['median_ms']:6.0f} ms, at most {found[name]['most_ms']:.0f} ms")
    print()
    return found


def _once(network: Network, picture: Any) -> float:
    began = time.perf_counter()
    network.run(picture)
    return time.perf_counter() - began


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from trainer.execution import export
from trainer.execution.openvino import OpenVinoExecutor
network = OpenVinoExecutor(Path("/nowhere")).load(Path(sys.argv[1]))
def memory():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
generator = np.random.default_rng(0)
(picture,) = export.sample([3], 640, 640)
for index in range(int(sys.argv[2])):
    height, width = (640, 640) if index == 100 else generator.integers(16, 641, 2)
    network.run(picture[:, :height, :width])
    if index == 199:
        print(memory())
print(memory())
"""


def _memory(model: Path, calls: int) -> dict[str, Any]:
    """Most memory after 200 calls of random sizes, the largest among them, and after all."""
    argv = [sys.executable, "-c", MEMORY, str(model), str(max(calls, 201))]
    early, late = (float(word) for word in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[-2:])
    print(f"Memory over {calls} calls of random sizes: {early:.0f} MB after 200, {late:.0f} MB at the end ({late / early - 1:+.1%}).")
    return {"calls": calls, "after_200_mb": early, "at_the_end_mb": late}


if __name__ == "__main__":
    main()
