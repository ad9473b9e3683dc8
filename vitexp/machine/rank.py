"""The rank of this process in a run and who started it; no process outlives the one that started it.

Further devices have a process each. Lightning's, which the first one starts, know LOCAL_RANK; `torchrun` and `srun`
start all of them, and say so in their own variables.
"""

import ctypes
import os
import platform
import re
import signal
import sys
from pathlib import Path

from vitexp.errors import ConfigError

_PR_SET_PDEATHSIG = 1
# The process that the further ones of a run were started by, as long as it is no launcher of somebody else's.
_FIRST = "VITEXP_FIRST"
_TORCHRUN = ("LOCAL_RANK", "RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_NUMBERS = (
    *("LOCAL_RANK", "RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"),
)


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
    """Let a further process die with the first: it may wait for the others where no handler runs.

    Raises:
        ConfigError: variables of a launcher that has not started this process, which would wait for the others.
    """
    _require_launcher()
    if is_first():
        os.environ[_FIRST] = str(os.getpid())
    else:
        end_with_parent(signal.SIGKILL)


def _require_launcher() -> None:
    set_here = os.environ
    for name in _NUMBERS:
        if name in set_here and not set_here[name].isdigit():
            raise ConfigError(f"{name}={set_here[name]} is set in the environment, and is no number; unset {name}")
    if "TORCHELASTIC_RUN_ID" in set_here:
        missing = [name for name in _TORCHRUN if name not in set_here]
        if missing or int(set_here["LOCAL_WORLD_SIZE"]) > _relatives():
            found = f"no {missing[0]}" if missing else f"LOCAL_WORLD_SIZE={set_here['LOCAL_WORLD_SIZE']}"
            raise ConfigError(
                f"TORCHELASTIC_RUN_ID is set, with {found}, but torchrun has not started this process as one of"
                f" several; unset TORCHELASTIC_RUN_ID {' '.join(name for name in _TORCHRUN if name in set_here)}"
            )
    elif _is_step():
        if "SLURM_PROCID" not in set_here:
            number = set_here["SLURM_STEP_NUM_TASKS"]
            raise ConfigError(
                f"SLURM_STEP_NUM_TASKS={number} is set without SLURM_PROCID, but srun sets both; unset"
                " SLURM_STEP_NUM_TASKS, or start with srun vitexp ..."
            )
    elif set_here.get(_FIRST) not in (str(os.getpid()), str(os.getppid())):
        one = {"LOCAL_RANK": -1, "RANK": 0, "WORLD_SIZE": 1}  # all that a process by itself may be told
        told = [name for name, most in one.items() if int(set_here.get(name, -1)) > most]
        if told:
            raise ConfigError(
                f"{told[0]}={set_here[told[0]]} is set, as for one of several processes, but neither torchrun nor srun"
                f" nor vitexp has started this one so; unset {' '.join(told)}"
            )


def require_own_address() -> None:
    """Raise ConfigError if the processes that this one is about to start would look for each other elsewhere."""
    address = os.environ.get("MASTER_ADDR", "localhost")
    if address not in ("localhost", "127.0.0.1", "::1", platform.node()):
        raise ConfigError(
            f"MASTER_ADDR={address} is set, and this run starts its processes on this machine ({platform.node()}),"
            " where they meet; unset MASTER_ADDR MASTER_PORT"
        )


def _relatives() -> int:
    """The most children that the process which started this one has, or one before it; on Linux."""
    most, process = 1, os.getppid()
    while sys.platform == "linux" and process > 1:
        try:
            threads = list(Path(f"/proc/{process}/task").iterdir())
            most = max(most, sum(len((thread / "children").read_text().split()) for thread in threads))
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it is somebody else's, or gone
            break
    return most if sys.platform == "linux" else sys.maxsize
