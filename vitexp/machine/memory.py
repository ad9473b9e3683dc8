"""The memory that this machine has to spare."""

import sys
from pathlib import Path
from typing import Any

_GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes of main memory that are free, or infinitely many where the system does not say.

    In a container that is what its group of processes may still use, which can be less than what the machine has.
    """
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return sys.maxsize
    free = _numbers(meminfo)["MemAvailable:"] * 1024
    limit = _GROUP / "memory.max"
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        cached = _numbers(_GROUP / "memory.stat")["inactive_file"]  # given back when it is needed
        free = min(free, int(most) - int((_GROUP / "memory.current").read_text()) + cached)
    return free


def _numbers(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value, *_ in map(str.split, file.read_text().splitlines())}


def free_on(device: Any) -> int:
    """Bytes that are free on a torch device: of the GPU, else of main memory."""
    if device.type != "cuda":
        return free_memory()
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(free)
