"""JSON that others may have written, read with one error for all."""

import json
from pathlib import Path
from typing import TypeVar

from vitexp.errors import VitexpError
from vitexp.files.plain import read_plain

T = TypeVar("T")

# Annotations of a data set may be larger and set their own bound.
MAX_BYTES = 64 * 2**20


def read_json(file: Path, kind: type[T], *, error: type[VitexpError], advice: str, max_bytes: int = MAX_BYTES) -> T:
    """The JSON value in a file of a data set.

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
    text = read_plain(file, max_bytes=max_bytes, error=error, advice=advice)
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
