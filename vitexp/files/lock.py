"""A lock on a folder that ends with the process that holds it."""

import fcntl
import os
import time

from vitexp.errors import CheckpointError
from vitexp.files.folder import Folder

_TRIES, _PAUSE_S = 5, 0.02


class Lock:
    """A lock on a folder that a process holds, and that is gone with it: `name` is a file there."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder, self.name = folder, name
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Hold it; False if another process does. One that only looks at it is waited for."""
        with self.folder.updating(self.name, append=True) as descriptor:
            for _ in range(_TRIES):
                if _lock(descriptor, fcntl.LOCK_EX):
                    self._descriptor = os.dup(descriptor)
                    return True
                time.sleep(_PAUSE_S)
        return False

    def release(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def is_held(self) -> bool:
        """Whether a process holds it, this one or another; a file that is no lock is held by none."""
        if self._descriptor is not None:
            return True
        try:
            with self.folder.reading(self.name) as file:
                return not _lock(file.fileno(), fcntl.LOCK_SH)
        except (OSError, CheckpointError):
            return False


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
