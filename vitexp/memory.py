"""How much memory of this machine is free, without torch."""

import sys
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that this process may still use; infinitely many where the system does not say.

    Within a container that is what its group of processes may use, which can be less than what the machine has.
    """
    if not _MEMINFO.exists():
        return sys.maxsize
    line = next(line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable"))
    free = int(line.split()[1]) * 1024
    limit = _GROUP / "memory.max"
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int((_GROUP / "memory.current").read_text()))
    return free
