"""Regular files at a path of the user's, opened without waiting: no pipe, socket or device is taken for data."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from vitexp.errors import VitexpError


def open_plain(path: str | bytes | Path) -> BinaryIO:
    """A regular file, open for reading. Raises OSError; for a pipe, a device or a folder, too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{os.fsdecode(path)} is no regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: Path, *, max_bytes: int, error: type[VitexpError], advice: str) -> str:
    """The text of a regular file in UTF-8.

    Raises:
        FileNotFoundError: there is none.
        VitexpError: of class `error`, with `advice` at its end: unreadable, too large, another kind or coding.
    """
    try:
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_size > max_bytes:
                raise error(f"{path} is larger than {max_bytes:,} bytes; {advice}")
            return file.read(max_bytes + 1).decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path} cannot be read ({reason}); {advice}") from reason
