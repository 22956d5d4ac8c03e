"""How much memory pictures may take."""

import os
from pathlib import Path

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def for_pictures(setting: int, limits: tuple[Path, ...] | None = None) -> int:
    """Bytes: LACUNA_MEMORY, or where that is 0 half of what the machine has, or the container by the files `limits`."""
    return setting or _available(CGROUP_LIMITS if limits is None else limits) // 2


def _available(limits: tuple[Path, ...]) -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    containers = [int(text) for path in limits if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdigit()]
    return min([machine, *containers])
