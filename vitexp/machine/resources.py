"""Memory, disk, permission, processes that give out, in whatever words: one error, which says what to free.

Nothing here imports torch: where it has not been imported, nothing of it can have been raised.
"""

import errno
import re
import sys
from dataclasses import dataclass

from vitexp.errors import ResourceError, first_line
from vitexp.machine.workers import lost_worker

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
# What torch says in a RuntimeError without room on the GPU, on the host, for a kernel's workspace.
_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)
# What torch says so of a file that could not be written.
_FILE = re.compile(r"No space left|Disk quota|Permission denied|Read-only file system|file write failed", re.IGNORECASE)
# What torch says in a RuntimeError where another process of the run no longer answers.
_PEER = re.compile(r"Connection (closed|reset) by peer|remote (worker|process)|Broken pipe", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The values of a command that use memory and disk."""

    batch_size: int
    image_size: int
    accumulate: int
    outputs: str


def resource_error(error: Exception, asked: Asked) -> ResourceError | None:
    """The error that says what to lower or free; None where the error is about something else."""
    text = first_line(error)
    if (lost := lost_worker(error)) is not None:
        return lost
    starved = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if starved or _is_torch(error, "OutOfMemoryError") or _says(error, _MEMORY, text):
        return _memory(asked, text)
    if (isinstance(error, OSError) and error.errno in _DISK) or _says(error, _FILE, text):
        return _disk(asked, error, text)
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


def _memory(asked: Asked, text: str) -> ResourceError:
    size, accumulate = asked.image_size, asked.accumulate
    return ResourceError(
        f"out of memory with data.batch_size={asked.batch_size} at {size}x{size}, trainer.accumulate={accumulate}:"
        f" {text}; keep the batch and split it: trainer.accumulate={2 * accumulate} or bs=auto, or lower bs= or size="
    )


def _disk(asked: Asked, error: Exception, text: str) -> ResourceError:
    file, reason = (error.filename, error.strerror) if isinstance(error, OSError) else (None, None)
    where = f"{file}: {reason}" if file and reason else text
    return ResourceError(
        f"cannot read or write {where}; free space there, fix the permission, or choose another place:"
        f" outputs=FOLDER for runs (now {asked.outputs}), data.root=FOLDER for data"
    )
