"""Processor cores that this process may use."""

import os
import sys


def usable_cores() -> int:
    """The number of cores that the scheduler lets this process have, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
