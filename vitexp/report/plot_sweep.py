"""A sweep's test accuracy against the number that was swept, such as the learning rate: one curve for each setting.

The form of Sandler et al. 2022's figure of learning rates: means over seeds, bars of one standard deviation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from vitexp.report.figure import figure, strokes
from vitexp.report.text import elide

_METRIC = "test/top1"
_SEED = "seed"
Curve = list[tuple[float, float, float]]  # value of the key, mean, standard deviation


def against(rows: Sequence[Mapping[str, Any]], out: Path, *, title: str = "") -> Path | None:
    """Draw the picture, if a key with three numbers or more was swept and the jobs were tested.

    Args:
        rows: one a job: `overrides` (key -> value, of the swept keys) and `metrics`.
        out: the PNG.
        title: of the sweep, in one line.

    Raises:
        ResourceError: the picture cannot be written.
    """
    key = swept_number(rows)
    found = curves_of(rows, key) if key else {}
    if not found or key is None:
        return None
    with figure(out, headline=f"Test accuracy against {key}", size=(8.0, 5.0)) as drawing:
        axes = drawing.add_subplot()
        for (name, curve), (color, marker, line) in zip(found.items(), strokes(len(found)), strict=True):
            x, mean, spread = zip(*curve, strict=True)
            label = elide(name, 40) or None
            height, bar = [100 * m for m in mean], [100 * s for s in spread]
            axes.errorbar(x, height, bar, capsize=3, color=color, marker=marker, linestyle=line, label=label)
        values = [x for curve in found.values() for x, _, _ in curve]
        if min(values) > 0 and max(values) >= 10 * min(values):
            axes.set_xscale("log")
            ticks = sorted(set(values))  # the numbers that were swept: powers of ten would need math text
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        axes.set_title(elide(title, 90))
        axes.set_xlabel(key)
        axes.set_ylabel("top-1 (%)")
        if len(found) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return out


def swept_number(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The first key besides the seed that has three different numbers or more, and nothing else."""
    for key in dict.fromkeys(key for row in rows for key in row["overrides"]):
        numbers = {_number(row["overrides"].get(key)) for row in rows}
        if key != _SEED and None not in numbers and len(numbers) >= 3:
            return key
    return None


def curves_of(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Curve]:
    """For each setting of the other keys the means and deviations over seeds, by rising value of `key`."""
    scores: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        others = [str(value) for other, value in row["overrides"].items() if other not in (key, _SEED)]
        value, score = _number(row["overrides"][key]), row["metrics"].get(_METRIC)
        if score is not None and value is not None:
            scores.setdefault(", ".join(others), {}).setdefault(value, []).append(float(score))
    return {
        name: [(x, fmean(all_), stdev(all_) if len(all_) > 1 else 0.0) for x, all_ in sorted(points.items())]
        for name, points in scores.items()
    }


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
