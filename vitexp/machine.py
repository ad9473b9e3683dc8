"""What this machine has to spare."""

import sys
from pathlib import Path
from typing import Any


def free_memory() -> int:
    """Bytes of main memory that are free, or infinitely many where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return sys.maxsize
    line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def free_on(device: Any) -> int:
    """Bytes that are free on a torch device: of the GPU, else of main memory."""
    if device.type != "cuda":
        return free_memory()
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(free)
