"""Curves over the depth of a model, or over another axis, in panels beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from vitexp.report.figure import figure, footnote, strokes
from vitexp.report.text import elide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLE = 64  # characters above one panel
DEPTH = "block (1 is the first)"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: what is drawn, with its settings.
        label: of the y axis, with its unit.
        curves: label -> values, one for each place on the x axis.
        dots: label -> for each place, the values of its members (heads), of which the curve is the mean.
        places: positions on the x axis; 1, 2, ... if None.
        across: label of the x axis.
        log: whether the y axis is logarithmic.
        level: y of a reference line and its name.
        bottom: where the y axis begins; None leaves it to the values.
    """

    title: str
    label: str
    curves: Mapping[str, Sequence[float]]
    dots: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    places: Sequence[float] | None = None
    across: str = DEPTH
    log: bool = False
    level: tuple[float, str] | None = None
    bottom: float | None = None


def panels(drawn: Sequence[Panel], out: Path, *, headline: str, title: str = "") -> Path:
    """Draw the panels, an SVG beside the PNG: two in a row, in the place beside the last odd one what curves are named.

    Raises:
        ResourceError: the file cannot be written.
    """
    columns, rows = min(len(drawn), 2), (len(drawn) + 1) // 2
    with figure(out, headline=headline, size=(1.5 + 5.5 * columns, 0.6 + 5.0 * rows), vector=True) as drawing:
        grid = drawing.subplots(rows, columns, squeeze=False).flatten()
        spare = grid[len(drawn) :]
        for axes, panel in zip(grid, drawn, strict=False):
            _draw(axes, panel)
            if not len(spare):
                axes.legend(loc="best", fontsize=11)
        for axes in spare:
            axes.set_axis_off()
            axes.legend(*grid[0].get_legend_handles_labels(), loc="upper left", fontsize=13)
        footnote(drawing, title)
    return out


def _draw(axes: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    for (label, values), (color, marker, line) in zip(panel.curves.items(), strokes(len(panel.curves)), strict=True):
        places = np.arange(1, len(values) + 1) if panel.places is None else np.asarray(panel.places)
        for place, members in zip(places, panel.dots.get(label, ()), strict=False):
            axes.plot([place] * len(members), members, marker, color=color, alpha=0.35, markersize=6, mew=0)
        axes.plot(places, values, line, color=color, marker=marker, label=elide(label, 42))
    if panel.level is not None:
        axes.axhline(panel.level[0], color="#444444", linewidth=1.2, linestyle=(0, (2, 2)), label=panel.level[1])
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=panel.bottom)
    if panel.places is None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xticks(panel.places)
    axes.set_xlabel(panel.across)
    axes.set_ylabel(panel.label)
    axes.set_title("\n".join(wrap(panel.title, _TITLE)))
