"""Pictures of a detector: boxes over images, where the decoder looks for each object, what each query stands for.

The last two are DETR's own figures (Carion et al. 2020, Fig. 6 and Fig. 7).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexp.report.draw_boxes import COLOURS, DrawnBox, draw, enlarged
from vitexp.report.figure import BLUE, GREEN, VERMILION, figure
from vitexp.report.text import elide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS, _TILES = 4, 12
_TILE_INCHES = 3.4
_PIXELS = 400
_QUERIES = 20
# A box is large from this share of the image on; the paper's threshold is not published.
_LARGE = 0.1


def boxes_grid(
    images: Sequence[np.ndarray],
    boxes: Sequence[Sequence[DrawnBox]],
    captions: Sequence[str],
    out: Path,
    *,
    headline: str,
    title: str = "",
) -> Path:
    """Draw images with their boxes, at most twelve.

    Args:
        images: uint8 (C, h, w) each, of any sizes.
        boxes: of each image, in its pixels.
        captions: a line below each image.
        out: the PNG.
        headline: what the picture shows.
        title: run, model and data, in one line.

    Raises:
        ResourceError: the file cannot be written.
    """
    count = min(len(images), _TILES)
    columns, rows = min(_COLUMNS, max(count, 1)), max(-(-count // _COLUMNS), 1)
    with figure(out, headline=headline, size=(columns * _TILE_INCHES, rows * _TILE_INCHES + 0.8)) as drawing:
        grid = drawing.subplots(rows, columns, squeeze=False)
        for tile, axes in enumerate(grid.flat):
            axes.set_axis_off()
            if tile < count:
                axes.imshow(_with_boxes(images[tile], boxes[tile]))
                axes.text(0.5, -0.02, elide(captions[tile], 44), ha="center", va="top", transform=axes.transAxes)
        grid[0, 0].set_title(elide(title, 28 * columns))
    return out


def attention(
    images: Sequence[np.ndarray],
    boxes: Sequence[Sequence[DrawnBox]],
    maps: Sequence[np.ndarray],
    out: Path,
    *,
    title: str = "",
) -> Path:
    """Draw where the decoder looks for each detected object: a row an image, one tile an object.

    Args:
        images: uint8 (C, h, w) each.
        boxes: the objects of each image.
        maps: of each image (objects, h', w'), non-negative, over the same extent as the image.
        out: the PNG.
        title: run, model and data, in one line.
    """
    rows, columns = max(len(images), 1), max([1, *(len(row) for row in boxes)])
    headline = "Where the decoder looks for each object (last layer, mean of heads)"
    with figure(out, headline=headline, size=(max(columns, 3) * 3.2, rows * 3.0 + 0.8)) as drawing:
        grid = drawing.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for row, image in enumerate(images):
            for column, (box, weights) in enumerate(zip(boxes[row], maps[row], strict=True)):
                _overlay(grid[row, column], image, box, weights)
        grid[0, 0].set_title(elide(title, 24 * columns))
    return out


def query_boxes(boxes_cxcywh: np.ndarray, out: Path, *, title: str = "") -> Path:
    """Draw the centres of the boxes of the first queries over many images, coloured by the shape of the box.

    Args:
        boxes_cxcywh: (images, Q, 4), shares of the image.
        out: the PNG.
        title: run, model and data, in one line.
    """
    shown = min(_QUERIES, boxes_cxcywh.shape[1])
    headline = f"Box centres of {shown} queries over {len(boxes_cxcywh)} images"
    with figure(out, headline=headline, size=(13.0, 0.4 + 2.7 * -(-shown // 5) + 0.8)) as drawing:
        grid = drawing.subplots(-(-shown // 5), 5, squeeze=False, sharex=True, sharey=True)
        for query, axes in enumerate(grid.flat):
            axes.set_axis_off() if query >= shown else _centres(axes, boxes_cxcywh[:, query], query)
        shapes = {"small": GREEN, "large, wide": VERMILION, "large, tall": BLUE}
        for name, colour in shapes.items():
            grid[0, 0].plot([], [], "o", color=colour, label=name)
        drawing.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        grid[0, 0].set_title(elide(title, 100))
    return out


def _with_boxes(pixels: np.ndarray, boxes: Sequence[DrawnBox]) -> np.ndarray:
    image, factor = enlarged(pixels, _PIXELS)
    scaled = [DrawnBox(corners=[factor * c for c in b.corners], text=b.text, colour=b.colour) for b in boxes]
    return np.asarray(draw(image, scaled))


def _overlay(axes: "Axes", pixels: np.ndarray, box: DrawnBox, weights: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    height, width = pixels.shape[-2:]
    extent = (0.0, float(width), float(height), 0.0)
    axes.imshow((0.55 * _with_boxes(pixels, [])).astype(np.uint8), extent=extent)
    share = weights / max(float(weights.max()), 1e-12)
    axes.imshow(share, extent=extent, cmap="inferno", alpha=0.75 * share, interpolation="bilinear")
    left, top, right, bottom = box.corners
    colour, _ = COLOURS[box.colour % len(COLOURS)]
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2))
    axes.text(0.5, -0.02, elide(box.text, 24), ha="center", va="top", transform=axes.transAxes)


def _centres(axes: "Axes", boxes: np.ndarray, query: int) -> None:
    x, y, width, height = boxes.T
    large = width * height > _LARGE
    colours = np.where(~large, GREEN, np.where(width > height, VERMILION, BLUE))
    axes.scatter(x, y, s=max(4.0, 30 - len(boxes) / 10), c=colours.tolist(), alpha=0.7, linewidths=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    axes.set_aspect("equal")
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])
    axes.text(0.03, 0.08, str(query), fontsize=11, color="#444444")
