"""The rank of this process in a run and who started it; no process outlives the one that started it.

Further devices have a process each. Lightning's, which the first one starts, know LOCAL_RANK; `torchrun` and `srun`
start all of them, and say so in their own variables.
"""

import ctypes
import os
import re
import signal
import sys

_PR_SET_PDEATHSIG = 1


def is_first() -> bool:
    """Whether this process keeps the books: each further device of a run has one more."""
    if "LOCAL_RANK" in os.environ:
        return os.environ["LOCAL_RANK"] == "0"
    return not _is_step() or os.environ["SLURM_PROCID"] == "0"


def started() -> int | None:
    """The number of processes that `torchrun` or `srun` has started; None if the first one starts the others."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return int(os.environ["SLURM_STEP_NUM_TASKS"]) if "LOCAL_RANK" not in os.environ and _is_step() else None


def meeting() -> str | None:
    """A name that the processes which something else has started share, and no others do; None if there are none."""
    if started() is None:
        return None
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Number and port may be those of an earlier run: the process that started this one tells them apart.
        names = ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
        parts = ["torchrun", str(os.getppid()), *(os.environ.get(name, "") for name in names)]
    else:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        parts = ["srun", *(os.environ.get(name, "0") for name in names)]
    return re.sub(r"[^\w-]", "_", "-".join(parts))


def _is_step() -> bool:
    """Whether `srun` has started several of these."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def end_with_parent(signum: int = signal.SIGTERM) -> None:
    """Get a signal when the process that started this one is gone; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


def follow_first() -> None:
    """Let a further process die with the first: it may wait for the others where no handler runs."""
    if not is_first():
        end_with_parent(signal.SIGKILL)
