"""Errors that are the user's to mend, interrupts, and the exit codes that a script can branch on."""

import re
import signal
from dataclasses import dataclass
from importlib.util import find_spec

# Exit code -> its meaning, as `vitexp --help` and the documentation show it.
EXIT_CODES = {
    0: "complete",
    1: "a bug in vitexp",
    2: "usage or configuration; nothing was written",
    3: "data absent or damaged",
    4: "checkpoint or resume",
    5: "diverged: a loss was not finite",
    6: "resources: memory, disk, permission",
    7: "a sweep with failed jobs",
    130: "interrupted: saved, `vitexp resume` continues",
    138: "SLURM's SIGUSR1: saved, `vitexp resume` continues",
    143: "terminated: saved, `vitexp resume` continues",
}


def printable(text: str) -> str:
    """Text from files and command lines, safe for a terminal: control and bidi characters become escapes.

    Ends of lines before an indented one stay: a list that an error shows.
    """
    lines = re.split(r"\n(?=  )", text)
    return "\n".join("".join(c if c.isprintable() else _escape(c) for c in line) for line in lines)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


class VitexpError(ValueError):
    """An error that is the user's to mend: one line, no traceback. Only its subclasses are raised."""

    exit_code = 1

    def __str__(self) -> str:
        """The message; names in it may be a stranger's."""
        return printable(super().__str__())


class ConfigError(VitexpError):
    """Usage or configuration: nothing has been written."""

    exit_code = 2


class DataError(VitexpError):
    """A data set is absent, damaged or not what the configuration says."""

    exit_code = 3


class CheckpointError(VitexpError):
    """Weights or a run cannot be read, or do not fit."""

    exit_code = 4


class DivergedError(VitexpError):
    """A loss or gradient is not finite."""

    exit_code = 5


class ResourceError(VitexpError):
    """Memory, disk or permission: the message says what to lower or free."""

    exit_code = 6


class SweepError(VitexpError):
    """Jobs of a sweep failed; the others finished."""

    exit_code = 7


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


@dataclass(frozen=True)
class Ending:
    """The outcome of some work, as run.json and job.json record it."""

    state: str = "done"
    exit_code: int = 0
    reason: str | None = None


def ending(error: BaseException) -> Ending:
    """The outcome of work that `error` ends."""
    if (stopped := behind(error)) is not None:
        return Ending("interrupted", stopped.exit_code, str(stopped))
    if isinstance(error, VitexpError):
        return Ending("failed", error.exit_code, str(error))
    return Ending("failed", VitexpError.exit_code, f"{type(error).__name__}: {error}")


def first_line(error: BaseException) -> str:
    """The message of an error in one line; the name of its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def require_extra(extra: str, *modules: str, asked: str) -> None:
    """Raise ConfigError unless the modules of an optional extra are installed; `asked` is what the user typed."""
    absent = [module for module in modules if not _is_here(module)]
    if absent:
        raise ConfigError(f"{asked} needs {' and '.join(absent)} beside vitexp; type: pip install 'vitexp[{extra}]'")


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that holds it is not here either
        return False
