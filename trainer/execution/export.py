"""From Keras to OpenVINO, once: the network is exported, read back, and compared before it counts.

`make` starts a child process, since it takes TensorFlow: 700 MB that a serving worker never gives back. `main` is the child.
What is exported is derived from weights that were checked; nothing exported is ever accepted from outside.
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shared import children
from shared.errors import Fault, Refused, Transient
from shared.imaging import tiles
from shared.models.manifest import Manifest
from trainer import artifact, networks

if TYPE_CHECKING:
    from trainer.execution import Network

FORMAT = 1  # of the record, and of everything that decides what an exported network is
FOLDER = "openvino"  # beside the weights
NETWORK, RECORD, REFUSAL = "network.xml", "export.json", "refused.txt"
FILES = (NETWORK, "network.bin")
TOLERANCE = 1e-5  # between the exported network and the Keras one, both in float32, pictures in 0..1
AGREED_DB = 80.0  # between tiled and whole on the sample: 60 is promised, and pictures differ
LEAST_DB = 60.0
HALO_STEP = 8
INPUTS = {"denoise": [3], "inpaint": [3, 1]}  # the channels of what a network of each task is given
EXPORT_SECONDS = 600.0
LOOK_SECONDS = 0.5
SPACE_BYTES = 64 << 20  # less free space than this explains a failed export


class Inexpressible(Exception):
    """OpenVINO has no words for this network, or says something else than Keras. The reason is for the log."""


@dataclass(frozen=True)
class Record:
    """What is known of an exported network. `inexpressible` is the reason why there is none."""

    model: str
    weights_sha256: str
    exporter: str
    files: dict[str, str]  # name → sha256
    multiple: int
    halo: int
    bytes_per_pixel: int
    difference: float  # largest absolute difference from the Keras network
    tiled_psnr: float  # dB between tiled with this halo and whole
    inexpressible: str = ""


@dataclass(frozen=True)
class Exported:
    """An exported network on disk: checked against its record."""

    network: Path
    record: Record


def exporter() -> str:
    """The version that an exported network was made by; others are made anew."""
    return f"{FORMAT}-openvino-{version('openvino')}"


def read(folder: Path, described: Manifest) -> Exported | None:
    """What lies in `folder`, if it was made from this model's weights by this exporter and is undamaged.

    Raises `Inexpressible` if the folder says that there can be none.
    """
    if not intact(folder, described):
        return None
    record = read_record(folder)
    if record.exporter != exporter():
        return None
    if record.inexpressible:
        raise Inexpressible(record.inexpressible)
    return Exported(folder / NETWORK, record)


def intact(folder: Path, described: Manifest) -> bool:
    """Whether `folder` holds, whole, what some exporter made of this model's weights."""
    try:
        record = read_record(folder)
        hashes = {} if record.inexpressible else {name: artifact.sha256_of(folder / name) for name in FILES}
    except (OSError, ValueError, TypeError):  # missing or damaged
        return False
    return record.weights_sha256 == described.weights_sha256 and hashes == record.files


def read_record(folder: Path) -> Record:
    """The record of an exported network. Raises OSError, ValueError or TypeError."""
    return Record(**json.loads((folder / RECORD).read_bytes()))


def make(model: Path, folder: Path, look: Callable[[], None] = lambda: None) -> None:
    """Export the artifact `model` into `folder`, which appears whole or not at all.

    Twice a second it calls `look`, which ends it by raising. Raises `Refused` for weights that do not fit,
    `Transient("storage_full")`, or `Fault("internal")` when the child ends otherwise; the log says why.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as making:
        environ = {
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_HOME": f"{making}/keras",
            "KERAS_BACKEND": "tensorflow",
        }
        child = children.Child(children.python("trainer.execution.export", str(model), f"{making}/done"), environ)
        try:
            status = _wait(child, look)
        finally:
            child.kill()
            child.close()
        if (refusal := Path(making, "done", REFUSAL)).exists():
            raise Refused("artifact_invalid", refusal.read_text(encoding="utf-8"))
        if status == errno.ENOSPC:
            raise Transient("storage_full", "There is no room to export the network: free some space under LACUNA_HOME.")
        if status == errno.ETIMEDOUT:
            raise Fault(
                "timed_out", f"The network was not exported within {EXPORT_SECONDS / 60:g} minutes: it is too large for this machine."
            )
        if status == -signal.SIGKILL:  # not by us: the system takes what needs most memory, and this child offers itself
            raise Fault("out_of_memory", "There was too little memory to export the network: it is too large for this machine.")
        if status:
            raise Fault("internal", f"The network could not be exported for OpenVINO (status {status}); the log says why.")
        shutil.rmtree(folder, ignore_errors=True)
        Path(making, "done").rename(folder)
        _sync(folder.parent)


def _wait(child: children.Child, look: Callable[[], None]) -> int:
    until = time.monotonic() + EXPORT_SECONDS
    while time.monotonic() < until:
        look()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.process.wait(LOOK_SECONDS)
    return errno.ETIMEDOUT


def main() -> None:
    """The child: `python -m trainer.execution.export ARTIFACT FOLDER`."""
    children.hold_lifeline()
    children.expendable()
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True)
    try:
        record = _export(model, folder)
        (folder / RECORD).write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
        for path in (*folder.iterdir(), folder):
            _sync(path)
    except Refused as error:
        (folder / REFUSAL).write_text(error.detail, encoding="utf-8")
    except (OSError, RuntimeError) as error:  # OpenVINO does not say that the disk is full
        full = shutil.disk_usage(folder).free < SPACE_BYTES or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
        if not full:
            raise
        sys.exit(errno.ENOSPC)


def _export(model: Path, folder: Path) -> Record:
    from trainer.execution.openvino import OpenVinoNetwork, library

    library()  # silenced before Keras imports it
    described, keras_network = artifact.load_network(model)
    channels = [given.shape[-1] for given in keras_network.inputs]
    if channels != INPUTS[described.task] or keras_network.outputs[0].shape[-1] != 3:
        raise Refused(
            "artifact_invalid", f"A network for {described.task} takes {INPUTS[described.task]} channels and gives 3; this one is another."
        )
    architecture = networks.ARCHITECTURES[described.architecture]
    config = networks.parse(described.architecture, described.config)
    multiple, halo = architecture.multiple(config), architecture.halo(config)
    record = Record(
        described.reference, described.hash_of_weights, exporter(), {}, multiple, halo, architecture.bytes_per_pixel(config), 0.0, 0.0
    )
    try:
        keras_network.export(str(folder / NETWORK), format="openvino", verbose=False)
        files = {name: artifact.sha256_of(folder / name) for name in FILES}
        exported = OpenVinoNetwork(Exported(folder / NETWORK, record), "float32")
        difference = _difference(keras_network, exported)
    except (Refused, MemoryError, OSError, ImportError):
        raise
    except Exception as error:  # what a converter raises for a layer it does not know is its own affair
        if shutil.disk_usage(folder).free < SPACE_BYTES:
            raise
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return Record(**{**asdict(record), "inexpressible": reason[:500]})
    if not difference <= TOLERANCE:
        return Record(**{**asdict(record), "inexpressible": f"it differs from the Keras network by {difference:.2g}"})
    halo, agreed = _agreed_halo(exported, channels)
    if agreed < LEAST_DB:
        return Record(**{**asdict(record), "inexpressible": f"tiled and whole agree to {agreed:.0f} dB only"})
    return Record(**{**asdict(record), "files": files, "difference": difference, "halo": halo, "tiled_psnr": round(agreed, 2)})


def sample(channels: list[int], height: int, width: int, count: int = 1) -> list[NDArray[np.float32]]:
    """Noisy pictures with structure at every scale, as photos have; inputs of one channel beside them are masks."""
    generator = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    spectrum = np.fft.rfft2(generator.standard_normal((count, channels[0], height, width))) / np.maximum(frequency, 1 / max(height, width))
    picture = np.moveaxis(np.fft.irfft2(spectrum, (height, width)), 1, -1)
    picture = 0.5 + 0.15 * picture / max(picture.std(), 1e-9) + generator.normal(0, 25 / 255, picture.shape)
    masks = [(generator.random((count, -(-height // 8), -(-width // 8), 1)) < 0.2).repeat(8, 1).repeat(8, 2) for _ in channels[1:]]
    return [picture.astype(np.float32), *(mask[:, :height, :width].astype(np.float32) for mask in masks)]


def _difference(keras_network: Any, exported: "Network") -> float:
    found = 0.0
    for height, width, count in ((96, 128, 1), (8, 8, 2), (160, 64, 2)):
        side = exported.multiple
        inputs = sample([given.shape[-1] for given in keras_network.inputs], -(-height // side) * side, -(-width // side) * side, count)
        by_keras = np.asarray(keras_network(inputs if len(inputs) > 1 else inputs[0], training=False))
        if not np.isfinite(by_keras).all():
            raise Refused("artifact_invalid", "The network gives values that are no numbers.")
        found = float(np.maximum(found, np.abs(by_keras - exported.run(*inputs)).max()))  # what is no number stays none
    return found


def _agreed_halo(network: "Network", channels: list[int], side: int = 512, tile: int = 128) -> tuple[int, float]:
    """(halo, dB): the smallest halo with which tiled and whole agree to `AGREED_DB`; at most all that a pixel depends on."""
    inputs = sample(channels, side, side)
    whole = network.run(*inputs)
    step = max(HALO_STEP, network.multiple)
    tried: dict[int, float] = {}

    def agreed(steps: int) -> float:
        if steps not in tried:
            tried[steps] = _tiled_psnr(network, inputs, whole, steps * step, tile)
        return tried[steps]

    enough, most = 1, -(-2 * network.halo // step)
    while agreed(enough) < AGREED_DB and enough < most:
        enough = min(2 * enough, most)
    too_few = max((steps for steps, psnr in tried.items() if psnr < AGREED_DB and steps < enough), default=0)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        enough, too_few = (middle, too_few) if agreed(middle) >= AGREED_DB else (enough, middle)
    return enough * step, agreed(enough)


def _tiled_psnr(network: "Network", inputs: list[NDArray[np.float32]], whole: NDArray[np.float32], halo: int, tile: int) -> float:
    tiled = np.empty_like(whole)
    for part in tiles.plan(whole.shape[1], whole.shape[2], halo, network.multiple, whole_pixels=0, tile=tile):
        window = np.s_[:, part.window_top : part.window_bottom, part.window_left : part.window_right]
        top, left = part.top - part.window_top, part.left - part.window_left
        output = network.run(*(given[window] for given in inputs))
        kept = output[:, top : top + part.bottom - part.top, left : left + part.right - part.left]
        tiled[:, part.top : part.bottom, part.left : part.right] = kept
    return float(min(200.0, -10 * np.log10(max(np.mean((tiled - whole) ** 2), 1e-20))))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
