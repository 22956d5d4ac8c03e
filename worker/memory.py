"""How much memory pictures may take: one half for the network's call, of which there is one at a time, one half for pictures."""

import os
from dataclasses import dataclass
from pathlib import Path

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
PICTURE_BYTES_PER_PIXEL = 64  # while a picture is in work, with its mask and reference: at most 61 were measured


@dataclass(frozen=True)
class Budget:
    """`call_bytes` limits what the network sees at once, `pixels` the pictures that are in work at once."""

    call_bytes: int
    pixels: int


def budget(setting: int, limits: tuple[Path, ...] = CGROUP_LIMITS) -> Budget:
    """From the setting in bytes, or half of what the machine or the container has."""
    total = setting or _available(limits) // 2
    return Budget(total // 2, total // 2 // PICTURE_BYTES_PER_PIXEL)


def _available(limits: tuple[Path, ...]) -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    containers = [int(text) for path in limits if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdigit()]
    return min([machine, *containers])
