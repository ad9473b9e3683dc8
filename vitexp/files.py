"""Files that are written whole or not at all, and JSON that others may have written, read with one error for all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vitexp.errors import VitexpError

T = TypeVar("T")

# The files of a run folder are far smaller; annotations of a data set may be larger and set their own bound.
MAX_BYTES = 64 * 2**20


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which gets its name once it is on the disk; nothing is left after an error."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> Path:
    """Write a text so that a reader sees the old content or the new, never half of it."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON as `write_text` does."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def read_json(file: Path, kind: type[T], *, error: type[VitexpError], advice: str, max_bytes: int = MAX_BYTES) -> T:
    """The JSON value in a file.

    Args:
        file: where it is.
        kind: dict, list, or object for either, what must be in it.
        error: what is raised.
        advice: what to do about it, the end of the message.
        max_bytes: larger files are refused unread.

    Raises:
        FileNotFoundError: there is none.
        VitexpError: of class `error`: unreadable, too large, no JSON, nested too deeply, or of another kind.
    """
    try:
        if file.stat().st_size > max_bytes:
            raise error(f"{file} is larger than {max_bytes:,} bytes; {advice}")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{file} cannot be read ({reason}); {advice}") from reason
    return parse_json(text, kind, source=str(file), error=error, advice=advice)


def parse_json(text: str, kind: type[T], *, source: str, error: type[VitexpError], advice: str) -> T:
    """The JSON value in a text; arguments and errors as of `read_json`, `source` says where it is from."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise error(f"{source} cannot be read as JSON ({reason}); {advice}") from reason
    if not isinstance(content, kind):
        wanted = "an object" if kind is dict else "a list"
        raise error(f"{source} holds {type(content).__name__}, not {wanted}; {advice}")
    return content
