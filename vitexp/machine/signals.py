"""Being stopped: SIGINT, SIGTERM and SLURM's SIGUSR1 become one exception that says which, and how to exit.

Lightning answers KeyboardInterrupt with exit code 1 and SIGTERM with 0; ours are 130 and 143, and the run says
`interrupted`. Inside the training loop the signal first waits for the next safe point (callback/safe_point.py).
"""

import signal
import time
from types import FrameType


class Interrupted(BaseException):
    """A signal asks the command to stop. Not an Exception: nothing may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        # Whether it came while a run folder was held, so that there is a run to continue.
        self.in_run = False
        # Whether SLURM has been asked for another turn.
        self.requeued = False

    @property
    def exit_code(self) -> int:
        """128 + signal number: 130 for SIGINT, 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.signum


def behind(error: BaseException) -> Interrupted | None:
    """The interrupt on top of which `error` came, by a library that wraps it or while things were closed; None if none.

    A signal arrives anywhere, so in code that is not ours, too.
    """
    seen: list[BaseException] = []
    while error not in seen:
        if isinstance(error, Interrupted):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__ or error
    return None


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
