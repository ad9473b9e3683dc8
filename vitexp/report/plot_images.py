"""Grids of images: the most confident mistakes, and one training batch as the model sees it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexp.report.figure import DPI, figure
from vitexp.report.text import elide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS, _ROWS = 6, 4
# Width of a tile with its gap, and height with the caption below it, in tiles.
_PITCH, _DROP = 1.08, 1.38
_TILE_INCHES = 1.75
# A share of a soft label below this is smoothing, not a second class.
_VISIBLE = 0.1


# Number of a tile -> the two lines below it.
Caption = Callable[[int], tuple[str, str]]


def mistakes(
    images: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    names: Sequence[str],
    out: Path,
    *,
    title: str = "",
) -> Path:
    """Draw the mistakes of which the model was surest, surest first.

    Args:
        images: (n, C, H, W) uint8, one or three channels; right answers among them are left out.
        true: (n,) class ids.
        predicted: (n,) class ids.
        confidence: (n,) probability of the predicted class.
        names: the K class names.
        out: the PNG.
        title: run, model and data, in one line.

    Raises:
        ResourceError: the file cannot be written.
    """
    wrong = np.flatnonzero(np.asarray(true) != np.asarray(predicted))
    order = wrong[np.argsort(-np.asarray(confidence)[wrong], kind="stable")][: _COLUMNS * _ROWS]

    def caption(tile: int) -> tuple[str, str]:
        index = order[tile]
        said = f"{_short(names[predicted[index]], 13)} ({100 * confidence[index]:.0f} %)"
        return _short(names[true[index]], 19), said

    headline = f"{len(order)} most confident mistakes: truth above, answer below" if len(wrong) else "No mistakes"
    return _grid(images[order], caption, out, headline=headline, title=title)


def batch(images: np.ndarray, labels: np.ndarray, names: Sequence[str], out: Path, *, title: str = "") -> Path:
    """Draw the first images of a training batch, augmented, with their labels.

    Args:
        images: (B, C, H, W) uint8, one or three channels; see `to_uint8`.
        labels: (B,) class ids, or (B, K) shares as mixup and cutmix make them: up to two classes are named.
        names: the K class names.
        out: the PNG.
        title: run, model and data, in one line.

    Raises:
        ResourceError: the file cannot be written.
    """

    def caption(tile: int) -> tuple[str, str]:
        if np.ndim(labels) == 1:
            return _short(names[labels[tile]], 19), ""
        shares = labels[tile]
        top = [k for k in np.argsort(-shares, kind="stable")[:2] if shares[k] > _VISIBLE]
        lines = [f"{_short(names[k], 13)} ({100 * shares[k]:.0f} %)" for k in top or [int(np.argmax(shares))]]
        return lines[0], lines[1] if len(lines) > 1 else ""

    shown = images[: _COLUMNS * _ROWS]
    headline = f"One training batch, augmented ({len(shown)} of {len(images)})"
    return _grid(shown, caption, out, headline=headline, title=title)


def to_uint8(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Undo the normalisation of float images (B, C, H, W): uint8 of the same shape, cut to 0..255."""
    shape = (1, -1, 1, 1)
    pixels = 255.0 * (np.asarray(images, dtype=np.float32) * np.reshape(std, shape) + np.reshape(mean, shape))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _short(name: str, width: int) -> str:
    """A class name in `width` characters; the first of ImageNet's synonyms if it needs that."""
    return elide(name if len(name) <= width else name.split(",")[0], width)


def _grid(
    images: np.ndarray, caption: Callable[[int], tuple[str, str]], out: Path, *, headline: str, title: str
) -> Path:
    """Images on one pair of axes, each one unit wide, two lines of caption below each."""
    count = len(images)
    aspect = images.shape[-2] / images.shape[-1] if count else 1.0
    columns, rows = min(_COLUMNS, max(count, 3)), max(-(-count // _COLUMNS), 1)
    drop = aspect + _DROP - 1
    size = (columns * _PITCH * _TILE_INCHES + 0.3, rows * drop * _TILE_INCHES + 1.0)
    with figure(out, headline=headline, size=size) as drawing:
        axes = drawing.add_subplot()
        for tile, image in enumerate(images):
            left, top = (tile % _COLUMNS) * _PITCH, (tile // _COLUMNS) * drop
            _show(axes, image, (left, left + 1, top + aspect, top))
            first, second = caption(tile)
            axes.text(left + 0.5, top + aspect + 0.03, first, ha="center", va="top", fontsize=12)
            axes.text(left + 0.5, top + aspect + 0.185, second, ha="center", va="top", fontsize=12, color="#A33F00")
        axes.set_xlim(-0.02, columns * _PITCH - _PITCH + 1.02)
        axes.set_ylim(rows * drop, -0.02)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(elide(title, 40 + 10 * columns))
    return out


def _show(axes: "Axes", image: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """One (C, H, W) image; pixels stay squares where they are enlarged."""
    pixels = image.transpose(1, 2, 0)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    enlarged = image.shape[-1] < _TILE_INCHES * DPI
    axes.imshow(pixels, extent=extent, interpolation="nearest" if enlarged else "antialiased")
