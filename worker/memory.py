"""How much memory pictures may take: one half for the network's call, of which there is one at a time, one half for pictures."""

from dataclasses import dataclass
from pathlib import Path

from shared import memory

PICTURE_BYTES_PER_PIXEL = 64  # while a picture is in work, with its mask and reference: at most 61 were measured


@dataclass(frozen=True)
class Budget:
    """`call_bytes` limits what the network sees at once, `pixels` the pictures that are in work at once."""

    call_bytes: int
    pixels: int


def budget(setting: int, limits: tuple[Path, ...] | None = None) -> Budget:
    """From the setting in bytes, or half of what the machine or the container has."""
    total = memory.for_pictures(setting, limits)
    return Budget(total // 2, total // 2 // PICTURE_BYTES_PER_PIXEL)
