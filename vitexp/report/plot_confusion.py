"""The confusion matrix of a classifier: numbers for few classes, the worst confusions beside the map for many."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexp.report.figure import GREY, VERMILION, figure
from vitexp.report.text import elide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Up to here each cell has room for its count and each class for its name.
_NUMBERED = 24
# Cells on a side that the map can show as distinct pixels.
_CELLS = 200
_WORST = 15


def confusion(matrix: np.ndarray, class_names: Sequence[str], out: Path, *, title: str = "") -> Path:
    """Draw a confusion matrix.

    Args:
        matrix: (K, K) counts, rows the true class, columns the predicted one.
        class_names: the K names.
        out: the PNG.
        title: run, model and data, in one line.

    Raises:
        ValueError: the matrix is not (K, K) for K names.
        ResourceError: the file cannot be written.
    """
    matrix = np.asarray(matrix)
    count = len(class_names)
    if matrix.shape != (count, count):
        raise ValueError(f"confusion: matrix {matrix.shape} for {count} class names; give a ({count}, {count}) matrix")
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    right = np.trace(matrix) / max(matrix.sum(), 1)
    headline = f"Confusion matrix: {100 * right:.1f} % of {int(matrix.sum()):,} images right"
    if count <= _NUMBERED:
        side = 5.5 + 0.38 * count
        with figure(out, headline=headline, size=(side + 0.8, side)) as drawing:
            _numbered(drawing.add_subplot(), matrix, share, class_names, title)
    else:
        with figure(out, headline=headline, size=(13.0, 7.2)) as drawing:
            left, right_axes = drawing.subplots(1, 2, width_ratios=[1.15, 1.0])
            _map(left, share, class_names, title)
            _worst(right_axes, matrix, class_names)
    return out


def _numbered(axes: "Axes", matrix: np.ndarray, share: np.ndarray, names: Sequence[str], title: str) -> None:
    from matplotlib.colors import PowerNorm

    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    labels = [elide(name, 16) for name in names]
    upright = all(len(label) <= 3 for label in labels)
    axes.set_xticks(range(len(names)), labels, rotation=0 if upright else 45, ha="center" if upright else "right")
    axes.set_yticks(range(len(names)), labels)
    size = 13 if len(names) <= 12 else 9
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column]:
            color = "white" if share[row, column] > 0.35 else "black"
            text = f"{int(matrix[row, column]):,}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
    _dress(axes, title)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.7, ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0", "5", "20", "50", "100"])
    bar.set_label("share of the true class (%)")


def _map(axes: "Axes", share: np.ndarray, names: Sequence[str], title: str) -> None:
    from matplotlib.colors import PowerNorm

    block = -(-len(names) // _CELLS)
    edges = np.arange(0, len(names), block)
    # The largest share of a block: a mean would hide the single confusion that matters.
    cells = np.maximum.reduceat(np.maximum.reduceat(share, edges, axis=0), edges, axis=1)
    span = (-0.5, len(edges) * block - 0.5)
    axes.imshow(cells, cmap="Blues", norm=PowerNorm(0.35, 0, 1), interpolation="nearest", extent=(*span, *span[::-1]))
    _dress(axes, title)
    axes.set_xlabel(f"predicted class (number 0 to {len(names) - 1})")
    axes.set_ylabel("true class (number)")


def _worst(axes: "Axes", matrix: np.ndarray, names: Sequence[str]) -> None:
    """Bars of the most frequent confusions."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:_WORST]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, off.shape), strict=True) if off[i, j]]
    counts = [int(off[pair]) for pair in pairs]
    labels = [f"{elide(names[i], 18)} → {elide(names[j], 18)}" for i, j in pairs]
    axes.barh(range(len(pairs)), counts, color=VERMILION, height=0.7)
    axes.set_yticks(range(len(pairs)), labels, fontsize=12)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("images")
    axes.set_title("most frequent confusions: true → predicted")


def _dress(axes: "Axes", title: str) -> None:
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    axes.tick_params(color=GREY)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(elide(title, 70))
