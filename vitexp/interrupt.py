"""Being stopped: SIGINT and SIGTERM become one exception that says which, and how to exit.

Lightning answers KeyboardInterrupt with exit code 1 and SIGTERM with 0; ours are 130 and 143, and the run says
`interrupted`. Inside the training loop the signal first waits for the next safe point (callback/safe_point.py).
"""

import signal
from types import FrameType
from typing import NoReturn


class Interrupted(BaseException):
    """A signal asks the command to stop. Not an Exception: nothing may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + signal number: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum


def install() -> None:
    """Raise Interrupted on SIGINT and SIGTERM from now on."""
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def ignore() -> None:
    """Let SIGINT and SIGTERM pass from now on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def stop(signum: int, frame: FrameType | None) -> NoReturn:
    """The handler: unwind at once."""
    raise Interrupted(signum)
