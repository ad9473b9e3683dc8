"""Records that vitexp keeps as JSON, parsed once: each key of its type and range, or an error that names file and key.

A record is a TypedDict. Keys that it does not know are left out, so that an older vitexp reads a newer one's records.
"""

import re
import reprlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypedDict,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from vitexp.errors import CheckpointError
from vitexp.files.folder import Folder, is_plain

R = TypeVar("R")

_MOST_ITEMS = 100_000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Between:
    """The range of a number, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class Chars:
    """The most characters of a text; `raw` texts, which are compared with others, keep their control characters."""

    most: int
    raw: bool = False


@dataclass(frozen=True)
class FileName:
    """A text that names a file or folder of a run."""


Count = Annotated[int, Between(0, 2**53)]
Seconds = Annotated[float, Between(0, 1e12)]
Text = Annotated[str, Chars(100_000)]
Raw = Annotated[str, Chars(10_000, raw=True)]
Option = Annotated[str, Chars(200)]
Name = Annotated[str, FileName()]
Metrics = dict[Option, float]


class Hardware(TypedDict, total=False):
    """The machine that a run is on."""

    cpu: Text
    cores: Count
    system: Text
    device: Text


class AdapterRecord(TypedDict):
    """The trained part beside a frozen base."""

    base: Option
    parameters: Count
    bytes: Count


class RunRecord(TypedDict, total=False):
    """run.json: the identity card of a run, and how far it is."""

    schema: Count
    argv: list[Text]
    name: Option | None
    chosen: dict[Option, Name | None]
    seed: int
    epochs: Count
    started: Option
    duration_s: Seconds
    fit_seconds: Seconds
    metrics: Metrics
    git_commit: Option | None
    git_dirty: bool | None
    packages: dict[Option, Option | None]
    python: Option
    hardware: Hardware
    pid: Count
    host: Option
    state: Literal["running", "done", "failed", "interrupted"]
    exit_code: Count | None
    reason: Text | None
    classes: list[Raw]
    monitor: tuple[Option, Literal[-1, 1]]
    slurm_job: Option | None
    trackers: dict[Option, Option]
    wandb_id: Option | None
    changed: list[Text]
    tasks: list[Name]
    adapter: AdapterRecord


class Evaluation(TypedDict):
    """evaluation.json: a test of a run's weights, perhaps on other data."""

    checkpoint: Text | None
    data: Option
    metrics: Metrics
    per_class: NotRequired[dict[Raw, float]]
    notes: NotRequired[list[Text]]


def read_record(folder: Folder, file: str, kind: type[R], *, advice: str) -> R:
    """The record in a file.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is not one that vitexp writes; names file, key and what stood there, `advice` at the end.
    """
    return parse(kind, folder.json(file, advice=advice), source=str(folder.path / file), advice=advice)


def parse(kind: type[R], content: Mapping[str, object], *, source: str, advice: str = "report it") -> R:
    """A record from what JSON gives.

    Raises:
        CheckpointError: as of `read_record`.
    """
    try:
        found: R = _value(kind, content, "")
    except _Unfit as unfit:
        key = unfit.key.removeprefix(".") or "all of it"
        raise CheckpointError(f"{source}: {key} is {unfit.found}, not {unfit.wanted}; {advice}") from None
    return found


def printable(text: str) -> str:
    """The text with escapes for control characters, lone surrogates and marks of direction; lines and tabs stay."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Unfit(Exception):
    """A value of another type or range than its key has."""

    def __init__(self, key: str, found: object, wanted: str) -> None:
        self.key, self.found, self.wanted = printable(key)[:80], printable(reprlib.repr(found))[:60], wanted


def _value(kind: Any, content: object, key: str) -> Any:
    """The content as a `kind`, which is a type of the records above."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _limited(_value(arguments[0], content, key), arguments[1:], key)
    if origin in (Union, UnionType):
        return None if content is None else _value(next(one for one in arguments if one is not NoneType), content, key)
    if origin is Literal:
        if not any((type(content), content) == (type(one), one) for one in arguments):
            raise _Unfit(key, content, f"one of {', '.join(map(str, arguments))}")
        return content
    if origin in (list, tuple):
        return _sequence(origin, arguments, content, key)
    if origin is dict or is_typeddict(kind):
        if not isinstance(content, Mapping) or len(content) > _MOST_ITEMS:
            raise _Unfit(key, content, "an object")
        if is_typeddict(kind):
            return _record(kind, content, key)
        names = {name: _value(arguments[0], name, f"{key}.{name[:40]}") for name in content}
        return {names[name]: _value(arguments[1], item, f"{key}.{name[:40]}") for name, item in content.items()}
    return _plain(kind, content, key)


def _record(kind: Hashable, content: Mapping[str, object], key: str) -> dict[str, object]:
    for name in sorted(_required(kind) - content.keys()):
        raise _Unfit(f"{key}.{name}", "absent", "there as it must be")
    return {name: _value(hint, content[name], f"{key}.{name}") for name, hint in _hints(kind) if name in content}


def _required(kind: Hashable) -> frozenset[str]:
    return frozenset(vars(kind)["__required_keys__"])


@cache
def _hints(kind: Hashable) -> list[tuple[str, object]]:
    """The keys of a record and their types."""
    hints = get_type_hints(kind, include_extras=True)
    return [(name, get_args(hint)[0] if get_origin(hint) is NotRequired else hint) for name, hint in hints.items()]


def _sequence(origin: type, kinds: tuple[object, ...], content: object, key: str) -> object:
    """A list of one kind, or a tuple of its own kinds, which JSON knows as a list."""
    if not isinstance(content, list | tuple) or len(content) > _MOST_ITEMS:
        raise _Unfit(key, content, "a list")
    if origin is tuple and len(content) != len(kinds):
        raise _Unfit(key, content, f"a list of {len(kinds)}")
    each = zip(kinds if origin is tuple else kinds * len(content), content, strict=True)
    return origin(_value(kind, item, f"{key}[{place}]") for place, (kind, item) in enumerate(each))


def _plain(kind: type[object], content: object, key: str) -> object:
    """A number, a truth value or a text."""
    words = {bool: "true or false", int: "an integer of 64 bits", float: "a number", str: "a text"}
    if isinstance(content, int) and kind is float and not isinstance(content, bool) and abs(content) < 2**63:
        return float(content)
    fits = isinstance(content, kind) and isinstance(content, bool) == (kind is bool)
    if not fits or (isinstance(content, int) and abs(content) >= 2**63):
        raise _Unfit(key, content, words[kind])
    return content


def _limited(found: Any, limits: Sequence[object], key: str) -> object:
    for limit in limits:
        if isinstance(limit, Between) and not limit.low <= found <= limit.high:
            raise _Unfit(key, found, f"from {limit.low:g} to {limit.high:g}")
        if isinstance(limit, Chars):
            if len(found) > limit.most:
                raise _Unfit(key, found, f"of at most {limit.most:,} characters")
            found = found if limit.raw else printable(found)
        if isinstance(limit, FileName) and not is_plain(found):
            raise _Unfit(key, found, "a name of letters, digits and = , . _ + - @")
    return found
