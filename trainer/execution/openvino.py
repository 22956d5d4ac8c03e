"""OpenVINO: the default on CPUs. Runs the network that `export.py` made from the Keras one, without TensorFlow.

One compilation for any height and width, and the precision always set and told: OpenVINO's own choice is bfloat16 where
the processor has it, and a cached compilation for each shape would cost 32 MB a shape.
"""

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import events
from shared.errors import Refused
from shared.models import manifest
from trainer.execution import Described, cache, pad
from trainer.execution.export import Exported, Inexpressible
from trainer.execution.tensorflow import TensorFlowExecutor
from trainer.execution.tensorflow import installed as tensorflow_installed

CPU_FLAGS = Path("/proc/cpuinfo")
HINTS = {"bfloat16": "bf16", "float32": "f32"}
KEPT_PRIMITIVES = 64  # compiled for sizes seen, some forty a size; by default 5 000: a gigabyte more after 1 000 sizes, for 8 % of time
# glibc keeps what OpenVINO frees when the size changes, in pieces that fit the next size badly; given back, a worker does not grow
GIVE_BACK = getattr(ctypes.CDLL(None), "malloc_trim", None)


def library() -> Any:
    """The module `openvino`, silenced: importing and converting would tell a statistics server about it."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import fails; OpenVINO then uses its own stub
    import openvino

    return openvino


def installed() -> bool:
    """Whether OpenVINO is there."""
    return importlib.util.find_spec("openvino") is not None


def native_bfloat16(cpuinfo: Path = CPU_FLAGS) -> bool:
    """Whether this processor multiplies bfloat16 by itself. OpenVINO's own list names it also where it is emulated, and slower."""
    if not cpuinfo.exists():
        return False
    flags = next((line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("flags")), "")
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())


class OpenVinoNetwork:
    """An exported network, compiled for this CPU. One call at a time: it uses every core."""

    def __init__(self, exported: Exported, precision: str) -> None:
        core = library().Core()
        hints = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "CPU_RUNTIME_CACHE_CAPACITY": str(KEPT_PRIMITIVES),
        }
        compiled = core.compile_model(core.read_model(exported.network), "CPU", hints)
        self.multiple = exported.record.multiple
        self.halo = exported.record.halo
        self.bytes_per_pixel = exported.record.bytes_per_pixel
        self.described = Described("openvino", precision, "cpu")
        self._request = compiled.create_infer_request()
        self._shape: tuple[int, ...] = ()  # of the last call

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Network.run`."""
        height, width = inputs[0].shape[1:3]
        self._request.infer([np.ascontiguousarray(pad(given, self.multiple)) for given in inputs], share_inputs=True)
        output = self._request.get_output_tensor(0).data  # OpenVINO's own memory: the next call overwrites it
        result = np.array(output[:, :height, :width], dtype=np.float32)
        if inputs[0].shape != self._shape and GIVE_BACK is not None:
            GIVE_BACK(0)
        self._shape = inputs[0].shape
        return result


class OpenVinoExecutor:
    """OpenVINO on this CPU. What cannot be exported is handed to TensorFlow, if that is installed."""

    def __init__(self, cached: Path, precision: str | None = None) -> None:
        """`cached` is the folder of exported networks; the precision is what the processor does best if none is given."""
        self._cached = cached
        self._precision = precision or ("bfloat16" if native_bfloat16() else "float32")

    def load(self, artifact: Path, look: Callable[[], None] = lambda: None) -> Any:
        """See `Executor.load`."""
        try:
            return OpenVinoNetwork(cache.exported(artifact, self._cached, look), self._precision)
        except Inexpressible as error:
            name = manifest.read(artifact).reference
            if not tensorflow_installed():
                raise Refused("artifact_invalid", f"OpenVINO cannot run {name}, and TensorFlow is not installed here.") from error
            events.emit("executor.fell_back", model=name, reason=str(error))
            return TensorFlowExecutor().load(artifact, look)

    def describe(self) -> Described:
        """See `Executor.describe`."""
        return Described("openvino", self._precision, "cpu")
