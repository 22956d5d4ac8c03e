"""A recipe made definite: what it comes to on this machine, or why it cannot be trained."""

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import Fault, Refused
from shared.models.manifest import Manifest
from shared.trainings.recipe import ARCHITECTURES, Recipe
from trainer import networks
from trainer.execution.openvino import CPU_FLAGS
from trainer.learner import Weights

MEMINFO = Path("/proc/meminfo")
UNKNOWN = 1 << 62  # bytes: nobody says how much there is
FIXED_BYTES = 700 << 20  # TensorFlow, the weights, and what is kept of each of them
KEPT = 6  # a map of every layer is kept for the way back, in units of what a forward call needs


@dataclass(frozen=True)
class Plan:
    """A recipe made definite: which network, computed how, from which weights, in how many parts."""

    recipe: Recipe
    architecture: str
    config: Mapping[str, Any]
    precision: str
    parts: int = 1
    base: Weights | None = None


def plan(recipe: Recipe, base: tuple[Manifest, Weights] | None = None, memory: int | None = None) -> Plan:
    """What a recipe comes to on this machine. `memory` is what a training may take, in bytes.

    Raises `Refused` for a config that the architecture does not take or a base that does not fit,
    `Fault("out_of_memory")` if not even a single crop will fit.
    """
    architecture, config = _network(recipe, base[0] if base else None)
    precision = recipe.precision
    if precision == "auto":
        precision = "bfloat16" if learns_in_bfloat16() else "float32"
    parts = _parts(recipe, architecture, config, room(memory))
    return Plan(recipe, architecture, config, precision, parts, base[1] if base else None)


def learns_in_bfloat16(cpuinfo: Path = CPU_FLAGS) -> bool:
    """Whether this processor learns faster in bfloat16 (docs/decisions/0030). Never a matter of timing: the same machine answers the same.

    AMX does, and AMD's AVX-512; Intel's AVX-512 has the instruction, and took half as long again as float32.
    """
    if not cpuinfo.exists():
        return False
    lines = dict(line.split(":", 1) for line in reversed(cpuinfo.read_text(encoding="utf-8").splitlines()) if ":" in line)
    said = {name.strip(): value.split() for name, value in lines.items()}
    flags = said.get("flags", [])
    return "amx_bf16" in flags or ("avx512_bf16" in flags and said.get("vendor_id") == ["AuthenticAMD"])


def _network(recipe: Recipe, base: Manifest | None) -> tuple[str, dict[str, Any]]:
    if base is None:
        architecture = recipe.architecture or ARCHITECTURES[recipe.task][0]
        _parsed(architecture, recipe.config)
        return architecture, recipe.config
    if base.task != recipe.task:
        raise Refused("invalid_field", f"{base.reference} does not {recipe.task}.", fields={"base": f"it does {base.task}"})
    if recipe.architecture not in (None, base.architecture):
        raise Refused(
            "invalid_field",
            f"{base.reference} is a {base.architecture}, not a {recipe.architecture}.",
            fields={"architecture": "not the base's"},
        )
    if recipe.config and _parsed(base.architecture, recipe.config) != networks.parse(base.architecture, base.config):
        raise Refused("invalid_field", f"{base.reference} has another config than the recipe.", fields={"config": "not the base's"})
    return base.architecture, base.config


def _parsed(architecture: str, config: Mapping[str, Any]) -> Any:
    try:
        parsed = networks.parse(architecture, config)
    except Refused as error:
        raise Refused("invalid_field", error.detail, fields={"config": error.detail}) from error
    if getattr(parsed, "channels", 3) != 3:
        raise Refused(
            "invalid_field", "Networks learn pictures of three channels; grey ones are fed as three.", fields={"config": "channels"}
        )
    return parsed


def room(memory: int | None = None) -> int:
    """Bytes that a training may take: what it is told, and no more than the machine and the limits of this process leave."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    known = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    if MEMINFO.exists():
        (line,) = (line for line in MEMINFO.read_text(encoding="ascii").splitlines() if line.startswith("MemAvailable"))
        known.append(1024 * int(line.split()[1]))
    return min(known + ([memory] if memory else []), default=UNKNOWN)


def estimate(recipe: Recipe, architecture: str, config: Mapping[str, Any], parts: int) -> int:
    """Bytes that a training will take, learning from a batch in so many parts."""
    return FIXED_BYTES + -(-recipe.batch // parts) * _a_crop(recipe, architecture, config)


def _a_crop(recipe: Recipe, architecture: str, config: Mapping[str, Any]) -> int:
    a_pixel: int = networks.ARCHITECTURES[architecture].bytes_per_pixel(networks.parse(architecture, config))
    return KEPT * a_pixel * recipe.patch**2


def _parts(recipe: Recipe, architecture: str, config: Mapping[str, Any], left: int) -> int:
    """The fewest parts, a power of two or a crop each, in which a batch is thought to fit `left` bytes."""
    if estimate(recipe, architecture, config, recipe.batch) > left:
        a_crop = _a_crop(recipe, architecture, config) / 1e9
        raise Fault("out_of_memory", f"A crop of {recipe.patch} pixels takes about {a_crop:.1f} GB to learn from: take a smaller patch.")
    parts = 1
    while estimate(recipe, architecture, config, parts) > left:
        parts = min(2 * parts, recipe.batch)
    return parts
