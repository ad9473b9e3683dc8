"""Maps over images: a row an image, the image itself first."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexp.report.figure import figure, footnote

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEADS = 6
_TILE = 1.9  # inches


def overlays(
    pixels: np.ndarray, rollout: np.ndarray, heads: np.ndarray, out: Path, *, block: int, title: str = ""
) -> Path:
    """Draw (n, C, S, S) images in 0..1 with their rollout (n, h, w) and the first heads' maps (n, H, h, w).

    Each map is stretched from its own smallest to its own largest value; an SVG stands beside the PNG.

    Raises:
        ResourceError: the file cannot be written.
    """
    count, shown = len(pixels), min(_HEADS, heads.shape[1])
    names = ["image", "rollout", *(f"head {head + 1}" for head in range(shown))]
    size = (len(names) * _TILE + 0.4, count * _TILE + 1.5)
    headline = f"Attention rollout, and heads of block {block}"
    with figure(out, headline=headline, size=size, vector=True) as drawing:
        grid = drawing.subplots(count, len(names), squeeze=False)
        for row, image in enumerate(pixels):
            maps = [None, rollout[row], *heads[row, :shown]]
            for axes, weights, name in zip(grid[row], maps, names, strict=True):
                _tile(axes, image, weights)
                axes.set_title(name if row == 0 else "", fontsize=13, loc="center")
        note = "each map from its smallest (blue) to its largest value (yellow)"
        footnote(drawing, f"{note}\n{title}" if size[0] < 12 else f"{note}; {title}")
    return out


def _tile(axes: "Axes", image: np.ndarray, weights: np.ndarray | None) -> None:
    shown = image.transpose(1, 2, 0)
    shown = np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown
    extent = (0, shown.shape[1], shown.shape[0], 0)
    if weights is not None:
        shown = np.repeat(shown.mean(axis=2, keepdims=True), 3, axis=2)
    axes.imshow(shown, extent=extent, interpolation="nearest")
    if weights is not None:
        axes.imshow(weights, extent=extent, cmap="cividis", alpha=0.65, interpolation="nearest")
    axes.set_axis_off()
