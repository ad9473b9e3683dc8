"""Errors that are the user's to mend, by the exit code that a script can branch on."""

from importlib.util import find_spec


class VitexpError(ValueError):
    """An error that is the user's to mend: one line, no traceback. Only its subclasses are raised."""

    exit_code = 1


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
