"""Records are of their types and ranges, or an error that names file, key and what stood there."""

import math
from typing import Any

import pytest

from vitexp.errors import CheckpointError
from vitexp.files.record import Evaluation, RunRecord, parse, printable

GOOD: dict[str, Any] = {
    "argv": ["vitexp", "a\nb"],
    "chosen": {"model": "vit_nano", "analysis": None},
    "epochs": 3,
    "duration_s": 2,
    "metrics": {"test/top1": 0.5, "test/loss": math.inf},
    "hardware": {"cores": 2},
    "monitor": ["val/top1", 1],
    "classes": ["cat", "\x1b[31m", "\udcff"],
    "state": "done",
    "name": None,
    "git_dirty": False,
}
BENT = [
    ("epochs", True, "epochs is True, not an integer"),
    ("epochs", 2**60, "epochs is 1152921504606846976, not from 0 to"),
    ("epochs", 3.0, "epochs is 3.0, not an integer"),
    ("duration_s", math.nan, "duration_s is nan, not from 0 to"),
    ("duration_s", "long", "duration_s is 'long', not a number"),
    ("metrics", {"test/top1": None}, r"metrics\.test/top1 is None, not a number"),
    ("metrics", {"test/top1": 10**400}, r"metrics\.test/top1 is 10+.*, not a number"),
    ("chosen", {"model": "../x"}, r"chosen\.model is '\.\./x', not a name"),
    ("hardware", {"cores": "two"}, r"hardware\.cores is 'two', not an integer"),
    ("argv", ["a", 1], r"argv\[1\] is 1, not a text"),
    ("argv", {}, "argv is {}, not a list"),
    ("monitor", ["val/top1", 2], r"monitor\[1\] is 2, not one of -1, 1"),
    ("monitor", ["val/top1"], r"monitor is \['val/top1'\], not a list of 2"),
    ("state", "fine\x1b", r"state is 'fine\\x1b', not one of running, done"),
    ("name", "x" * 201, "name is 'x+.*', not of at most 200 characters"),
    ("git_dirty", 1, "git_dirty is 1, not true or false"),
    ("adapter", {"base": "x"}, r"adapter is .*, not complete: it lacks bytes, parameters"),
]


def test_a_good_record_keeps_what_it_says() -> None:
    record = parse(RunRecord, {**GOOD, "of a newer version": 1}, source="run.json")
    assert record == {**GOOD, "duration_s": 2.0, "monitor": ("val/top1", 1)}


@pytest.mark.parametrize(("key", "value", "reason"), BENT)
def test_a_bent_record_is_named_by_file_key_and_value(key: str, value: object, reason: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^here/run\.json: {reason}.*; copy it again$"):
        parse(RunRecord, {**GOOD, key: value}, source="here/run.json", advice="copy it again")


def test_every_key_refuses_every_other_type() -> None:
    for key, good in GOOD.items():
        for other in (None, True, 1, 1.5, "x", [1], {"a": 1}, [[]], {"a": {}}):
            more = {"duration_s": (int, float), "name": (str,), "git_dirty": (type(None),)}
            if type(other) not in (type(good), *more.get(key, ())):
                with pytest.raises(CheckpointError, match=f"^x: {key}"):
                    parse(RunRecord, {**GOOD, key: other}, source="x")


def test_text_that_is_shown_is_made_valid_and_text_that_is_compared_stays() -> None:
    record = parse(RunRecord, {"host": "a\x1b[31m\ud800\u202e", "classes": ["\x1b"]}, source="x")
    assert record["host"] == "a\\x1b[31m\\ud800\\u202e"
    assert record["classes"] == ["\x1b"]
    assert printable("line\n\tü") == "line\n\tü"


def test_a_key_that_must_be_there() -> None:
    with pytest.raises(CheckpointError, match=r"all of it is .*, not complete: it lacks data, metrics"):
        parse(Evaluation, {"checkpoint": None}, source="x")
    assert parse(Evaluation, {"checkpoint": None, "data": "d", "metrics": {}}, source="x")["metrics"] == {}
