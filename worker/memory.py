"""How much memory pictures may take."""

import os
from pathlib import Path

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def budget_bytes(setting: int) -> int:
    """The setting, or half of what the machine or the container has."""
    if setting:
        return setting
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for path in CGROUP_LIMITS if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdigit()]
    return min([machine, *limits]) // 2
