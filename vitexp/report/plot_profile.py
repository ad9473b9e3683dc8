"""Run time by kind of operation, and by part of the model beside its share of the arithmetic."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from vitexp.report.figure import BLUE, GREY, ORANGE, figure, footnote

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def shares(
    kinds: Mapping[str, float],
    memory_bound: Sequence[str],
    parts: Mapping[str, float],
    macs: Mapping[str, int],
    out: Path,
    *,
    note: str,
    title: str = "",
) -> Path:
    """Draw both as bars in percent, an SVG beside the PNG.

    Args:
        kinds: kind of operation -> seconds.
        memory_bound: which kinds are bound by memory.
        parts: part of the model -> seconds.
        macs: part of the model -> multiply-accumulates.
        out: the PNG.
        note: latency, above the second panel.
        title: model, checkpoint and data.

    Raises:
        ResourceError: the file cannot be written.
    """
    bound = sum(kinds[kind] for kind in memory_bound) / sum(kinds.values())
    with figure(
        out, headline=f"{100 * bound:.0f} % of the run time is memory-bound", size=(13.0, 5.4), vector=True
    ) as drawing:
        left, right = drawing.subplots(1, 2)
        _kinds(left, kinds, memory_bound)
        _parts(right, parts, macs, note)
        footnote(drawing, title)
    return out


def _kinds(axes: "Axes", kinds: Mapping[str, float], memory_bound: Sequence[str]) -> None:
    total = sum(kinds.values())
    names = [name for name, seconds in kinds.items() if seconds]
    values = [100 * kinds[name] / total for name in names]
    colors = [ORANGE if name in memory_bound else BLUE if name == "arithmetic" else GREY for name in names]
    hatches = ["//" if name in memory_bound else "" for name in names]
    bars = axes.barh(range(len(names)), values, color=colors, hatch=hatches, edgecolor="white", height=0.7)
    axes.bar_label(bars, fmt="%.1f", padding=4)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.15 * max(values))
    axes.set_xlabel("share of the run time (%)")
    axes.set_title("by kind of operation; hatched: memory-bound")


def _parts(axes: "Axes", parts: Mapping[str, float], macs: Mapping[str, int], note: str) -> None:
    places, width = np.arange(len(parts)), 0.38
    for shift, values, color, hatch, label in (
        (-width / 2, parts, ORANGE, "//", "run time"),
        (width / 2, macs, BLUE, "", "multiply-accumulates"),
    ):
        shares = [100 * value / max(sum(values.values()), 1e-30) for value in values.values()]
        bars = axes.bar(places + shift, shares, width, color=color, hatch=hatch, edgecolor="white", label=label)
        axes.bar_label(bars, fmt="%.0f", padding=2)
    axes.set_xticks(places, list(parts))
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.15)
    axes.set_ylabel("share (%)")
    axes.set_title("\n".join(wrap(note, 70)))
    axes.legend(loc="best")
