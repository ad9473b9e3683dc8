"""The spelling of values for people: numbers, times and names on the screen and in pictures."""

import math

from vitexp.errors import printable


def clean(value: object) -> str:
    """Text from data, safe for a terminal: control, bidi and other unprintable characters become escapes."""
    return printable(str(value).replace("\n", "\\n"))


def elide(value: object, width: int) -> str:
    """Clean text of at most `width` characters, an ellipsis in its middle where it was longer."""
    text = clean(value)
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}"


def duration(seconds: float | None) -> str:
    """`6.1 s`, `4:05` (minutes), `2:04:05` (hours); a dash where unknown."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def number(value: object) -> str:
    """Integers with thousands separators, floats with four decimals, from a hundred on with one, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return clean(value)
    if isinstance(value, int):
        return f"{value:,}"
    if 100 <= abs(value) < 1e7:
        return f"{value:,.1f}"
    if value == 0 or 1e-3 <= abs(value) < 1e7 or not math.isfinite(value):
        return f"{value:.4f}"
    return f"{value:.2e}"


def magnitude(value: float) -> str:
    """`58.3 k`, `5.53 M`, `1.26 G`: three significant digits."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share in [0, 1] as `98.9 %`, a tiny one as `<0.1 %`."""
    return "<0.1 %" if 0 < share < 5e-4 else f"{100 * share:.1f} %"
