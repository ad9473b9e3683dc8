"""Spelling of values: nothing that a terminal obeys, nothing longer than its place."""

import math

import pytest

from vitexp.report.text import clean, duration, elide, magnitude, number, percent


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "tab\t", "bidi\u202eexe", "bell\x07", "lone \ud800 surrogate"])
def test_clean_leaves_nothing_that_a_terminal_obeys(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(text) != text


def test_clean_leaves_names_alone() -> None:
    for name in ("aquarium_fish", "größe", "고양이", "[red]", "a b"):
        assert clean(name) == name


@pytest.mark.parametrize("width", [3, 4, 7, 12])
def test_elide_keeps_head_and_tail(width: int) -> None:
    text = elide("abcdefghijklmnop", width)
    assert len(text) == width
    assert text[0] == "a"
    assert text[-1] == "p"
    assert elide("ab", width) == "ab"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (6.14, "6.1 s"), (59.97, "1:00"), (245, "4:05"), (7445, "2:04:05"), (None, "–"), (math.nan, "–")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_number() -> None:
    assert number(1234567) == "1,234,567"
    assert number(0.98765) == "0.9877"
    assert number(3e-5) == "3.00e-05"
    assert number(12843.21) == "12,843.2"
    assert number(99.5) == "99.5000"
    assert number(None) == "–"
    assert number(math.inf) == "inf"
    assert number("\x1b[0m").isprintable()


def test_magnitude_and_percent() -> None:
    assert magnitude(5_526_346) == "5.53 M"
    assert magnitude(58_346) == "58.3 k"
    assert percent(0.989) == "98.9 %"
    assert percent(1e-6) == "<0.1 %"
    assert percent(0.0) == "0.0 %"
