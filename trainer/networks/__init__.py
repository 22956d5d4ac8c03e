"""The networks by name. Each builder takes a validated config and returns a Keras model; this is the only way to get one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from shared.errors import Refused
from trainer.networks import dncnn, inpaint_unet, nafnet, unet


@dataclass(frozen=True)
class Architecture:
    """How to build one kind of network, and what a tiler must know of it."""

    config: type[BaseModel]
    build: Any  # (config, precision, dropout) -> keras.Model
    multiple: Any  # (config) -> int: height and width must be a multiple of this
    halo: Any  # (config) -> int: pixels of context a tile needs on each side
    bytes_per_pixel: Any  # (config) -> int: memory of a call in float32, by pixels of the picture


ARCHITECTURES: dict[str, Architecture] = {
    "dncnn": Architecture(dncnn.DncnnConfig, dncnn.build, dncnn.multiple, dncnn.halo, dncnn.bytes_per_pixel),
    "inpaint-unet": Architecture(unet.UnetConfig, inpaint_unet.build, unet.multiple, unet.halo, inpaint_unet.bytes_per_pixel),
    "nafnet": Architecture(nafnet.NafnetConfig, nafnet.build, nafnet.multiple, nafnet.halo, nafnet.bytes_per_pixel),
    "unet": Architecture(unet.UnetConfig, unet.build, unet.multiple, unet.halo, unet.bytes_per_pixel),
}


def parse(architecture: str, config: Mapping[str, Any]) -> BaseModel:
    """Check a config from outside. Raises `Refused("artifact_invalid")` for an unknown network or a bad value."""
    if architecture not in ARCHITECTURES:
        raise Refused("artifact_invalid", f"There is no architecture “{architecture}”; known: {', '.join(ARCHITECTURES)}.")
    try:
        return ARCHITECTURES[architecture].config.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused("artifact_invalid", f"The config of “{architecture}” is wrong at {where}: {first['msg']}.") from error


def build(architecture: str, config: Mapping[str, Any], precision: str = "float32", dropout: float = 0.0) -> Any:
    """A Keras model of `architecture`, randomly initialised. `precision` is float32 or bfloat16 (weights stay float32).

    `dropout` is the share of the channels that a block leaves out while it learns. It is no part of the config: the names of
    the weights and what the network gives are the same without.
    """
    parsed = parse(architecture, config)
    return ARCHITECTURES[architecture].build(parsed, precision, dropout)
