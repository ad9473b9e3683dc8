"""A run's curves from its metrics.csv: loss, accuracy and learning rate against the optimizer step."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexp.report.figure import BLUE, GREEN, GREY, ORANGE, figure
from vitexp.report.metrics import ACCURACY, PRECISION, read_metrics, series
from vitexp.report.text import elide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (8.0, 5.0)
Rows = Sequence[dict[str, float]]


def curves(metrics_csv: Path, out_dir: Path, *, title: str = "") -> list[Path]:
    """Draw loss.png, accuracy.png, precision.png and learning_rate.png, each only if the file has its columns.

    Args:
        metrics_csv: the run's metrics.csv.
        out_dir: folder of the pictures.
        title: run, model and data, in one line.

    Returns:
        The files written.

    Raises:
        CheckpointError: no metrics.csv, or a damaged one.
        ResourceError: a picture cannot be written.
    """
    rows = read_metrics(metrics_csv)
    drawn = [
        _loss(rows, out_dir / "loss.png", title),
        _scores(rows, out_dir / "accuracy.png", title, ACCURACY, "Accuracy", "accuracy (% of images)"),
        _scores(rows, out_dir / "precision.png", title, PRECISION, "Average precision", "COCO average precision (%)"),
        _learning_rate(rows, out_dir / "learning_rate.png", title),
    ]
    return [path for path in drawn if path is not None]


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean over a twentieth of the values (n,), the window cut at both ends."""
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _loss(rows: Rows, out: Path, title: str) -> Path | None:
    name = "train/loss_step" if any("train/loss_step" in row for row in rows) else "train/loss"
    steps, values = series(rows, name)
    val_steps, val_values = series(rows, "val/loss")
    if not len(steps) + len(val_steps):
        return None
    with figure(out, headline="Loss", size=_SIZE) as drawing:
        axes = drawing.add_subplot()
        axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=1.0)
        axes.plot(steps, smooth(values), color=BLUE, label="train, running mean", marker=_mark(steps))
        axes.plot(val_steps, val_values, color=ORANGE, label="val, each epoch", marker="o", markersize=_dot(val_steps))
        _finish(axes, rows, title, "loss (mean per image)")
    return out


def _scores(rows: Rows, out: Path, title: str, names: Iterable[str], headline: str, label: str) -> Path | None:
    """Two curves on val, one point on test."""
    styles = dict(zip(names, ((BLUE, "o", "-"), (GREEN, "s", "--"), (ORANGE, "D", "")), strict=True))
    drawn = {name: series(rows, name) for name in styles}
    if not any(len(steps) for steps, _ in drawn.values()):
        return None
    with figure(out, headline=headline, size=_SIZE) as drawing:
        axes = drawing.add_subplot()
        for name, (steps, values) in drawn.items():
            color, marker, line = styles[name]
            if len(steps):
                size = _dot(steps) if line else 10
                said = f"{name}  {100 * values[-1]:.3g} %"
                axes.plot(steps, 100 * values, line, color=color, label=said, marker=marker, markersize=size)
        _finish(axes, rows, title, label)
    return out


def _learning_rate(rows: Rows, out: Path, title: str) -> Path | None:
    steps, values = series(rows, "lr")
    if not len(steps):
        return None
    with figure(out, headline="Learning rate", size=_SIZE) as drawing:
        axes = drawing.add_subplot()
        axes.plot(steps, values, color=BLUE, label=f"peak {values.max():.3g}", marker=_mark(steps))
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        _finish(axes, rows, title, "learning rate (per step)")
    return out


def _finish(axes: "Axes", rows: Rows, title: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(elide(title, 95))
    axes.set_xlabel(_step_label(rows))
    axes.set_ylabel(label)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, 1.02 * max(1.0, *(row["step"] for row in rows)))
    axes.legend(loc="best")
    axes.tick_params(color=GREY)


def _step_label(rows: Rows) -> str:
    """The x axis, with the number of epochs it covers."""
    epochs = int(max((row["epoch"] for row in rows if "epoch" in row), default=0)) + 1
    return f"optimizer step ({epochs} epoch{'s' if epochs > 1 else ''} shown)"


def _mark(steps: np.ndarray) -> str:
    """A lone value has no line: mark it."""
    return "o" if len(steps) < 3 else ""


def _dot(steps: np.ndarray) -> float:
    """Marker size that leaves long curves visible."""
    return 7.0 if len(steps) <= 30 else 0.0
