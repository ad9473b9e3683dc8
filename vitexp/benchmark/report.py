"""The measurements of a benchmark, ready to print."""

from collections.abc import Sequence
from dataclasses import dataclass

from vitexp.benchmark.timing import Timing

TIMES = ("median ms", "fastest", "slowest")


@dataclass(frozen=True)
class Report:
    """A table with a line above it, and the ratios by name, which scripts read."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    ratios: dict[str, float]


def milliseconds(timing: Timing) -> list[float]:
    """Median, fastest, slowest: one cell for each of `TIMES`."""
    return [round(1000 * seconds, 2) for seconds in (timing.seconds, timing.fastest, timing.slowest)]
