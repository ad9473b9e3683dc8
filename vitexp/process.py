"""Which process of a run this is, and that none outlives the one that started it."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def is_first() -> bool:
    """Whether this process keeps the books: each further device of a run has one more, which Lightning starts."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def end_with_parent(signum: int = signal.SIGTERM) -> None:
    """Get a signal when the process that started this one is gone; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


def follow_first() -> None:
    """For a further process: it may wait for the others where no handler runs, so it dies with the first."""
    if not is_first():
        end_with_parent(signal.SIGKILL)
