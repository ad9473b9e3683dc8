"""Records that vitexp keeps as JSON, parsed once: each key of its type and range, or an error that names file and key.

A record is a TypedDict. Keys that it does not know are left out, so that an older vitexp reads a newer one's records.
"""

import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
Reader = Callable[[object], Any]

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
        found: R = _reader(kind)(content)
    except _Unfit as unfit:
        key = printable(unfit.key.removeprefix("."))[:80] or "all of it"
        raise CheckpointError(f"{source}: {key} is {unfit.found}, not {unfit.wanted}; {advice}") from None
    return found


def printable(text: str) -> str:
    """The text with escapes for control characters, lone surrogates and marks of direction; lines and tabs stay."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Unfit(Exception):
    """A value of another type or range than its key has."""

    def __init__(self, found: object, wanted: str) -> None:
        self.key, self.found, self.wanted = "", printable(reprlib.repr(found))[:60], wanted


def _at(place: str | int, read: Reader, content: object) -> object:
    """The value at a key of an object or a place in a list, which an error names."""
    try:
        return read(content)
    except _Unfit as unfit:
        unfit.key = (f"[{place}]" if isinstance(place, int) else f".{place[:40]}") + unfit.key
        raise


def _reader(kind: object) -> Reader:
    """The function that reads a `kind`, which is a type of the records above; made once."""
    if kind not in _READERS:
        _READERS[kind] = _made(kind)
    return _READERS[kind]


def _made(kind: object) -> Reader:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        return _record(kind)
    if origin is Annotated:
        return _limited(_reader(arguments[0]), arguments[1:])
    if origin in (Union, UnionType):
        inner = _reader(next(one for one in arguments if one is not NoneType))
        return lambda content: None if content is None else inner(content)
    if origin is Literal:
        return _one_of(arguments)
    if origin is list:
        return _list(_reader(arguments[0]))
    if origin is tuple:
        return _tuple([_reader(one) for one in arguments])
    if origin is dict:
        return _mapping(*map(_reader, arguments))
    raise TypeError(f"a record has no {kind}")


def _record(kind: object) -> Reader:
    hints = get_type_hints(kind, include_extras=True)
    bare = {name: get_args(hint)[0] if get_origin(hint) is NotRequired else hint for name, hint in hints.items()}
    readers = {name: _reader(hint) for name, hint in bare.items()}
    required = frozenset(vars(kind)["__required_keys__"])

    def read(content: object) -> dict[str, object]:
        if not isinstance(content, Mapping):
            raise _Unfit(content, "an object")
        if absent := required - content.keys():
            raise _Unfit(content, f"complete: it lacks {', '.join(sorted(absent))}")
        return {name: _at(name, inner, content[name]) for name, inner in readers.items() if name in content}

    return read


def _mapping(name: Reader, inner: Reader) -> Reader:
    def read(content: object) -> dict[object, object]:
        if not isinstance(content, dict) or len(content) > _MOST_ITEMS:
            raise _Unfit(content, "an object")
        return {_at(key, name, key): _at(key, inner, value) for key, value in content.items()}

    return read


def _list(inner: Reader) -> Reader:
    def read(content: object) -> list[object]:
        if not isinstance(content, list | tuple) or len(content) > _MOST_ITEMS:
            raise _Unfit(content, "a list")
        return [_at(place, inner, value) for place, value in enumerate(content)]

    return read


def _tuple(readers: Sequence[Reader]) -> Reader:
    """A list of a certain length, whose values each have a kind of their own."""

    def read(content: object) -> tuple[object, ...]:
        if not isinstance(content, list | tuple) or len(content) != len(readers):
            raise _Unfit(content, f"a list of {len(readers)}")
        return tuple(_at(place, inner, content[place]) for place, inner in enumerate(readers))

    return read


def _one_of(options: Sequence[object]) -> Reader:
    def read(content: object) -> object:
        if not any((type(content), content) == (type(one), one) for one in options):
            raise _Unfit(content, f"one of {', '.join(map(str, options))}")
        return content

    return read


def _number(content: object) -> float:
    if isinstance(content, bool) or not isinstance(content, int | float) or (type(content) is int and _huge(content)):
        raise _Unfit(content, "a number")
    return float(content)


def _plain(kind: type[object], content: object) -> object:
    """An integer, a truth value or a text."""
    if not isinstance(content, kind) or isinstance(content, bool) != (kind is bool) or _huge(content):
        raise _Unfit(content, {bool: "true or false", int: "an integer of 64 bits", str: "a text"}[kind])
    return content


_READERS: dict[object, Reader] = {float: _number, **{kind: partial(_plain, kind) for kind in (bool, int, str)}}


def _huge(content: object) -> bool:
    return isinstance(content, int) and abs(content) >= 2**63


def _limited(inner: Reader, limits: Sequence[object]) -> Reader:
    def read(content: object) -> object:
        found = inner(content)
        for limit in limits:
            if isinstance(limit, Between) and not limit.low <= found <= limit.high:
                raise _Unfit(found, f"from {limit.low:g} to {limit.high:g}")
            if isinstance(limit, Chars):
                if len(found) > limit.most:
                    raise _Unfit(found, f"of at most {limit.most:,} characters")
                found = found if limit.raw else printable(found)
            if isinstance(limit, FileName) and not is_plain(found):
                raise _Unfit(found, "a name of letters, digits and = , . _ + - @")
        return found

    return read
