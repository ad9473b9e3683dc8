"""Memory, disk, permission, processes that give out, in whatever words: one error, which says what to free.

Nothing here imports torch: where it has not been imported, nothing of it can have been raised.
"""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig

from vitexp.errors import ResourceError, VitexpError, first_line

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
# What torch says in a RuntimeError without room on the GPU, on the host, for a kernel's workspace.
_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)
# What torch says so of a file that could not be written.
_FILE = re.compile(r"No space left|Disk quota|Permission denied|Read-only file system|file write failed", re.IGNORECASE)
# What torch says in a RuntimeError where another process of the run no longer answers.
_PEER = re.compile(r"Connection (closed|reset) by peer|remote (worker|process)|Broken pipe", re.IGNORECASE)


@contextmanager
def naming_resources(cfg: DictConfig) -> Iterator[None]:
    """Raise ResourceError in place of what says that memory or disk gave out; all else passes as it is."""
    try:
        yield
    except VitexpError:
        raise
    except Exception as error:
        named = resource_error(cfg, error)
        if named is None:
            raise
        raise named from error


def resource_error(cfg: DictConfig, error: Exception) -> ResourceError | None:
    """The error that says what to lower or free; None where the error is about something else."""
    text = first_line(error)
    starved = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if starved or _is_torch(error, "OutOfMemoryError") or _says(error, _MEMORY, text):
        return _memory(cfg, text)
    if (isinstance(error, OSError) and error.errno in _DISK) or _says(error, _FILE, text):
        return _disk(cfg, error, text)
    if _says(error, _PEER, text):
        return ResourceError(
            f"a process of the run no longer answers, perhaps killed for memory ({text}); `vitexp resume` continues the"
            " run; where it is killed again, lower bs= or size="
        )
    return None


def _is_torch(error: Exception, name: str) -> bool:
    kind = getattr(sys.modules.get("torch"), name, None)
    return kind is not None and isinstance(error, kind)


def _says(error: Exception, pattern: re.Pattern[str], text: str) -> bool:
    return isinstance(error, RuntimeError) and pattern.search(text) is not None


def _memory(cfg: DictConfig, text: str) -> ResourceError:
    size, accumulate = cfg.data.image_size, cfg.trainer.accumulate
    return ResourceError(
        f"out of memory with data.batch_size={cfg.data.batch_size} at {size}x{size}, trainer.accumulate={accumulate}:"
        f" {text}; keep the batch and split it: trainer.accumulate={2 * accumulate} or bs=auto, or lower bs= or size="
    )


def _disk(cfg: DictConfig, error: Exception, text: str) -> ResourceError:
    file, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
    where = f"{file}: {reason}" if file and reason else text
    return ResourceError(
        f"cannot read or write {where}; free space there, fix the permission, or choose another place:"
        f" outputs=FOLDER for runs (now {cfg.outputs}), data.root=FOLDER for data"
    )
