"""SIGINT, SIGTERM and SLURM's SIGUSR1 become one exception that says which signal came, and how to exit.

Lightning answers KeyboardInterrupt with exit code 1 and SIGTERM with 0; ours are 130 and 143, and the run says
`interrupted`. Inside the training loop the signal first waits for the next safe point (callback/safe_point.py).
"""

import signal
import time
from types import FrameType

from vitexp.errors import Interrupted

# SIGUSR1 is what `sbatch --signal=USR1@120` sends before the time of a job is over.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# SLURM signals every process of a step, and a process passes on what it gets: the same request twice.
_ECHO_S = 1.0
_heard: dict[int, float] = {}


def install() -> None:
    """Raise Interrupted on these signals from now on."""
    _heard.clear()
    for signum in SIGNALS:
        signal.signal(signum, stop)


def ignore() -> None:
    """Let SIGINT and SIGTERM pass from now on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def is_echo(signum: int) -> bool:
    """Whether this signal came less than a second after the same one. Never of SIGINT, whose second press is meant."""
    now = time.monotonic()
    heard = _heard.get(signum)
    _heard[signum] = now
    return signum != signal.SIGINT and heard is not None and now - heard < _ECHO_S


def stop(signum: int, frame: FrameType | None) -> None:
    """The handler: unwind at once."""
    if not is_echo(signum):
        raise Interrupted(signum)
