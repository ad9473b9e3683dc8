"""Names in an error message: all that are allowed, and those nearest to what was typed."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def one_of(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names) or "none: there is none"


def nearest(word: str, names: Iterable[str]) -> str:
    """` (did you mean 'a' or 'b'?)` for the nearest spellings, or nothing."""
    names = list(dict.fromkeys(names))
    close = get_close_matches(word, names, n=3, cutoff=0.6)
    if not close and "." in word:
        last = word.rsplit(".", 1)[1]
        close = [name for name in names if name.rsplit(".", 1)[-1] == last][:3]
    if not close:
        leaf = get_close_matches(word.rsplit(".", 1)[-1], {name.rsplit(".", 1)[-1] for name in names}, n=1, cutoff=0.7)
        close = [name for name in names if leaf and name.rsplit(".", 1)[-1] == leaf[0]][:3]
    return f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
