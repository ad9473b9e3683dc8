"""Reading a run's metrics.csv: one row a logging step, an empty cell where a column has no value at that step."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vitexp.errors import CheckpointError

# The columns that vitexp writes, in the file's order. Others may follow, in alphabetical order.
COLUMNS = {
    "step": "optimizer steps done; strictly increasing",
    "epoch": "pass over the training set, from 0",
    "lr": "learning rate of the head at this step",
    "train/loss_step": "mean training loss since the last logging step",
    "train/grad_norm": "norm of all gradients before clipping",
    "train/loss": "mean training loss of the epoch",
    "train/top1": "share of augmented training images of the epoch whose label was the best guess, in [0, 1]",
    "val/loss": "mean loss over the validation set",
    "val/top1": "share of validation images whose label is the best guess, in [0, 1]",
    "val/top5": "share of validation images whose label is among the five best guesses, in [0, 1]",
    "val/ece": "expected calibration error over the validation set, in [0, 1]",
    "test/loss": "mean loss over the test set",
    "test/top1": "share of test images whose label is the best guess, in [0, 1]",
    "test/top5": "share of test images whose label is among the five best guesses, in [0, 1]",
    "test/ece": "expected calibration error over the test set, in [0, 1]",
}


def read_cells(path: Path) -> Iterator[dict[str, str]]:
    """The rows of metrics.csv as text, without a last row that a kill or a full disk has torn."""
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    reader = csv.reader(lines)
    columns = next(reader, [])
    for cells in reader:
        if len(cells) == len(columns):
            yield dict(zip(columns, cells, strict=True))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, each with the columns that have a value there. `step` is always there.

    Raises:
        CheckpointError: no such file, or a cell is not a number.
    """
    try:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in read_cells(Path(path))]
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path} does not exist; a run that has trained has its metrics there; `vitexp list runs` names the runs"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); each cell is a number or empty; train again") from None


def series(rows: Sequence[dict[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps (n,) at which column `name` has a finite value, and the values (n,)."""
    points = [(row["step"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return steps, values
