"""Attention collapse as a picture: likeness of neighbouring blocks by depth, of heads and tokens, of every pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexp.report.figure import GREY, figure, footnote, strokes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class BlockCurves:
    """L blocks: `adjacent`, `cosine`, `tokens` (L - 1,) to the one before; `nearest`, `heads` (L,); `pairs`."""

    adjacent: np.ndarray
    nearest: np.ndarray
    cosine: np.ndarray
    heads: Sequence[float]
    tokens: np.ndarray
    similar: int
    pairs: np.ndarray


def similarity(
    curves: Mapping[tuple[str, str], BlockCurves],
    out: Path,
    *,
    tau: float,
    block_ratio: float,
    nearest: int,
    title: str = "",
) -> Path:
    """Draw the curves of each (label, map), named in the first panel, and the first one's pairs; an SVG beside the PNG.

    Raises:
        ResourceError: the file cannot be written.
    """
    with figure(out, headline="Attention similarity between blocks", size=(13.0, 9.6), vector=True) as drawing:
        (ratio, cosine), (inside, pairs) = drawing.subplots(2, 2)
        _ratio(ratio, curves, tau, block_ratio, nearest)
        _lines(cosine, {key: c.cosine for key, c in curves.items()}, first=2)
        cosine.set_title("no threshold: mean cosine with the block before")
        cosine.set_ylabel("cosine over queries")
        _inside(inside, curves)
        _pairs(pairs, curves, tau)
        footnote(drawing, title)
    return out


def _ratio(
    axes: "Axes", curves: Mapping[tuple[str, str], BlockCurves], tau: float, block_ratio: float, nearest: int
) -> None:
    _lines(axes, {key: 100 * c.adjacent for key, c in curves.items()}, first=2)
    for (key, curve), (color, _, _) in zip(curves.items(), strokes(len(curves)), strict=True):
        blocks = np.arange(1, len(curve.nearest) + 1)
        axes.plot(blocks, 100 * curve.nearest, color=color, linewidth=1.0, alpha=0.6)
        line = next(line for line in axes.lines if line.get_label() == _label(key))
        line.set_label(f"{_label(key)}: {curve.similar} of {np.isfinite(curve.adjacent).sum()} blocks similar")
    axes.axhline(100 * block_ratio, color=GREY, linewidth=1.2, linestyle=(0, (2, 2)))
    axes.set_ylim(-3, 105 + 11 * len(curves))  # above 100 is the legend's place
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("similar vectors (%)")
    axes.set_title(
        f"cosine > {tau:g} with the block before (thin: {nearest} nearest); similar above {100 * block_ratio:g} %"
    )
    axes.legend(loc="upper left", fontsize=11)


def _inside(axes: "Axes", curves: Mapping[tuple[str, str], BlockCurves]) -> None:
    """Heads within a block, filled markers; output tokens of neighbours, hollow; colours as in the panel above."""
    labels = set()
    for (key, curve), (color, marker, line) in zip(curves.items(), strokes(len(curves)), strict=True):
        blocks = np.arange(1, len(curve.heads) + 1)
        axes.plot(blocks, curve.heads, line, color=color, marker=marker)
        if key[0] not in labels:
            depth = np.arange(2, len(curve.tokens) + 2)
            axes.plot(depth, curve.tokens, line, color=color, marker=marker, mfc="white", lw=1.2)
        labels.add(key[0])
    _by_block(axes)
    axes.set_ylabel("mean cosine")
    axes.set_title("filled: heads of a block; hollow: its tokens and the last block's")


def _pairs(axes: "Axes", curves: Mapping[tuple[str, str], BlockCurves], tau: float) -> None:
    from matplotlib.ticker import MaxNLocator

    first = next(iter(curves))[0]
    key, curve = [(key, curve) for key, curve in curves.items() if key[0] == first][
        -1
    ]  # the map that values are read by
    size = len(curve.pairs)
    extent = (0.5, size + 0.5, size + 0.5, 0.5)
    image = axes.imshow(100 * curve.pairs, cmap="cividis", vmin=0, vmax=100, extent=extent, interpolation="nearest")
    axes.grid(visible=False)
    _by_block(axes)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("block")
    axes.set_title(f"every pair of blocks, {_label(key)}")
    axes.figure.colorbar(image, ax=axes, shrink=0.85).set_label(f"vectors with cosine > {tau:g} (%)")


def _lines(axes: "Axes", curves: Mapping[tuple[str, str], np.ndarray], *, first: int) -> None:
    for (key, values), (color, marker, line) in zip(curves.items(), strokes(len(curves)), strict=True):
        blocks = np.arange(first, len(values) + first)
        axes.plot(blocks, values, line, color=color, marker=marker, label=_label(key))
    _by_block(axes)


def _by_block(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("block (1 is the first)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _label(key: tuple[str, str]) -> str:
    """`trained, softmax map`."""
    return f"{key[0]}, {key[1]} map"
