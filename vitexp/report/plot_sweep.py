"""A sweep's results against the number that was swept, such as the learning rate: one curve for each setting.

The form of Sandler et al. 2022's figure of learning rates: means over seeds, bars of one standard deviation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from vitexp.report.figure import figure, footnote, strokes
from vitexp.report.metrics import TEST_TOP1
from vitexp.report.text import elide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SEED = "seed"
_COLUMNS = 3  # panels in a row
_TICKS = 8  # at most so many swept numbers are each a tick
Curve = list[tuple[float, float, float]]  # value of the key, mean, standard deviation
Jobs = Sequence[Mapping[str, Any]]  # one a job: `overrides` (key -> value, of the swept keys) and `metrics`


def against(rows: Jobs, out: Path, *, title: str = "") -> Path | None:
    """Draw the test accuracy, if a key with three numbers or more was swept and the jobs were tested.

    Args:
        rows: the jobs.
        out: the PNG.
        title: of the sweep, in one line.

    Raises:
        ResourceError: the picture cannot be written.
    """
    key = swept_number(rows)
    found = curves_of(rows, key) if key else {}
    if not found or key is None:
        return None
    percent = {name: [(x, 100 * m, 100 * s) for x, m, s in curve] for name, curve in found.items()}
    with figure(out, headline=f"Test accuracy against {key}", size=(8.0, 5.0)) as drawing:
        axes = drawing.add_subplot()
        _draw(axes, percent, key)
        axes.set_title(elide(title, 90))
        axes.set_ylabel("top-1 (%)")
        if len(found) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return out


def analyses_against(rows: Jobs, folder: Path, *, title: str = "") -> list[Path]:
    """Draw each analysis that the jobs made, `sweep_<analysis>.png` with a panel for each of its headline values.

    Of a value that several maps have (softmax, mixed) each is a curve. None where no number was swept.

    Raises:
        ResourceError: a picture cannot be written.
    """
    key = swept_number(rows)
    names = dict.fromkeys(name for row in rows for name in row["metrics"] if name.startswith("analysis/"))
    written = []
    for analysis in dict.fromkeys(name.split("/")[1] for name in names) if key else ():
        panels: dict[str, dict[str, Curve]] = {}
        for name in (name for name in names if name.split("/")[1] == analysis):
            *kind, value = name.split("/")[2:]
            for setting, curve in curves_of(rows, str(key), name).items():
                panels.setdefault(value, {})[": ".join(filter(None, [setting, *kind]))] = curve
        written.append(_grid(panels, folder / f"sweep_{analysis}.png", analysis, str(key), title))
    return written


def _grid(panels: Mapping[str, Mapping[str, Curve]], out: Path, analysis: str, key: str, title: str) -> Path:
    """Panels three in a row, each with its legend."""
    lines = -(-len(panels) // _COLUMNS)
    columns = min(len(panels), _COLUMNS)
    headline = f"{analysis.capitalize()} against {key}"
    with figure(out, headline=headline, size=(1.0 + 5.0 * columns, 0.8 + 4.2 * lines)) as drawing:
        grid = drawing.subplots(lines, columns, squeeze=False).flatten()
        for axes, (value, curves) in zip(grid, panels.items(), strict=False):
            _draw(axes, curves, key)
            axes.set_ylabel(value.replace("_", " "))
            if len(curves) > 1:
                axes.legend(loc="best", fontsize=11)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        footnote(drawing, title)
    return out


def _draw(axes: "Axes", curves: Mapping[str, Curve], key: str) -> None:
    for (name, curve), (color, marker, line) in zip(curves.items(), strokes(len(curves)), strict=True):
        x, mean, spread = zip(*curve, strict=True)
        label = elide(name, 40) or None
        axes.errorbar(x, mean, spread, capsize=3, color=color, marker=marker, linestyle=line, label=label)
    ticks = sorted({x for curve in curves.values() for x, _, _ in curve})
    logarithmic = ticks[0] > 0 and ticks[-1] >= 10 * ticks[0]
    if logarithmic:
        axes.set_xscale("log")
    if logarithmic or len(ticks) <= _TICKS:  # ticks at the numbers that were swept: powers of ten would need math text
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(key)


def swept_number(rows: Jobs) -> str | None:
    """The first key besides the seed that has three different numbers or more, and nothing else."""
    for key in dict.fromkeys(key for row in rows for key in row["overrides"]):
        numbers = {_number(row["overrides"].get(key)) for row in rows}
        if key != _SEED and None not in numbers and len(numbers) >= 3:
            return key
    return None


def curves_of(rows: Jobs, key: str, metric: str = TEST_TOP1) -> dict[str, Curve]:
    """Means and deviations over seeds by rising value of `key`, for each setting of the other keys."""
    scores: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        others = [str(value) for other, value in row["overrides"].items() if other not in (key, _SEED)]
        value, score = _number(row["overrides"][key]), row["metrics"].get(metric)
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
