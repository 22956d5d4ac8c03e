"""Weights on disk: safetensors, written atomically, read back and compared before they count."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import Fault, Refused
from shared.models import manifest
from shared.models.manifest import Manifest
from trainer import networks

WEIGHTS = "weights.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> None:
    """Replace `path` atomically. Raises `Fault("internal")` if what was written does not read back the same."""
    from safetensors.numpy import load_file, save_file

    # safetensors #825 wants C order; ascontiguousarray alone gives a number a dimension
    contiguous = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file(contiguous, part, metadata=metadata)
    for name, tensor in load_file(part).items():
        if tensor.dtype != contiguous[name].dtype or not np.array_equal(tensor, contiguous[name].reshape(tensor.shape), equal_nan=True):
            raise Fault("internal", f"{path.name} was not written as it should be: {name} differs.")
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """(tensors by name, metadata)."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of floats, from the file's header alone. Raises `Refused("artifact_invalid")`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: tuple(part.get_shape()) for name, part in parts.items() if part.get_dtype() in ("F16", "F32")}
    except SafetensorError as error:
        raise Refused("artifact_invalid", f"The weights are no safetensors file: {str(error).splitlines()[0]}.") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(folder: Path, weights: Mapping[str, NDArray[np.float32]], described: Manifest) -> None:
    """Write an artifact: float16 weights, then the manifest that names their hash (what `described` says there is replaced)."""
    write_tensors(folder / WEIGHTS, {name: tensor.astype(np.float16) for name, tensor in weights.items()}, {})
    named = described.model_copy(update={"weights_sha256": sha256_of(folder / WEIGHTS)})
    (folder / "manifest.json").write_text(manifest.dump(named), encoding="utf-8")


def load_network(folder: Path, precision: str = "float32") -> tuple[Manifest, Any]:
    """(manifest, Keras model with its weights). Hash, names, shapes and types are checked first.

    Raises `Refused("artifact_invalid")` for files that do not fit together.
    """
    described = manifest.read(folder)
    if sha256_of(folder / WEIGHTS) != described.weights_sha256:
        raise Refused("artifact_invalid", f"The weights of {described.reference} are not those its manifest names.")
    model = networks.build(described.architecture, described.config, precision)
    expected = {variable.path: tuple(variable.shape) for variable in model.variables}
    found = _shapes(folder / WEIGHTS)
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))
        raise Refused("artifact_invalid", f"The weights of {described.reference} do not fit its network: {odd[:3]}.")
    tensors, _ = read_tensors(folder / WEIGHTS)
    for variable in model.variables:
        variable.assign(tensors[variable.path].astype(np.float32))
    return described, model


def load_weights(folder: Path) -> tuple[Manifest, dict[str, NDArray[np.float32]]]:
    """(manifest, weights by name) of an artifact to start from. Checked as `load_network` checks; a classical method is refused."""
    described = manifest.read(folder)
    if described.weights_sha256 is None:
        raise Refused("invalid_field", f"{described.reference} is a classical method: it cannot learn.", fields={"base": "cannot learn"})
    described, model = load_network(folder)
    return described, {variable.path: np.asarray(variable.value).copy() for variable in model.variables}
