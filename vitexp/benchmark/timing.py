"""Speed as ratios: contenders take turns in one process, so that what the machine does meanwhile hits all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Timing:
    """Median, fastest and slowest seconds of one contender, and the median of its per-round ratio to the first."""

    seconds: float
    fastest: float
    slowest: float
    ratio: float


def alternate(
    contenders: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 1,
    wait: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time each contender once a round, in turns.

    Args:
        contenders: name -> one unit of work; the first is what the ratios are relative to.
        repeats: rounds that count.
        warmup: rounds before them that do not.
        wait: called inside the time of each unit, to let a device finish it.

    Returns:
        name -> Timing; a ratio of 2 means that the contender takes half the time of the first.
    """
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(warmup + repeats):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            wait()
            if index >= warmup:
                rounds[name].append(time.perf_counter() - start)
    return summary(rounds)


def summary(rounds: Mapping[str, Sequence[float]]) -> dict[str, Timing]:
    """Name -> Timing of seconds measured in turns, one of each name a round; ratios are to the first name."""
    first = next(iter(rounds.values()))
    return {
        name: Timing(
            seconds=median(seconds),
            fastest=min(seconds),
            slowest=max(seconds),
            ratio=median(base / own for base, own in zip(first, seconds, strict=True)),
        )
        for name, seconds in rounds.items()
    }
