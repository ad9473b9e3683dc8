"""Names and order of metrics; metrics.csv: one row a logging step, an empty cell where a column has no value."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitexp.errors import CheckpointError
from vitexp.files.folder import Folder
from vitexp.files.record import printable

if TYPE_CHECKING:
    import numpy as np

# The share of test images whose label is the best guess, and among the five best.
TEST_TOP1, TEST_TOP5 = "test/top1", "test/top5"
# The curves of accuracy and of COCO's average precision: column -> its name in a legend; the test's is a point.
ACCURACY = {"val/top1": "val top-1", "val/top5": "val top-5", TEST_TOP1: "test top-1"}
PRECISION = {"val/map": "val AP", "val/map_50": "val AP50", "test/map": "test AP"}
VAL_TOP1, VAL_AP = next(iter(ACCURACY)), next(iter(PRECISION))
# What a run is known by, in the order of list, pages, leaderboard and dashboard.
HEADLINES = (
    *(TEST_TOP1, "test/map", "test/map_50", "best/val/top1", "best/val/map"),
    *("val/top1", "val/map", "test/loss", "test/ece"),
)
# Those of the last epoch that the card at the end of a run shows.
CARD = (
    *(TEST_TOP1, TEST_TOP5, "test/map", "test/map_50", "val/top1", "val/map"),
    *("test/loss", "test/ece", "val/loss", "train/loss"),
)

# A file of more than these is none that vitexp writes.
_MOST_BYTES, _MOST_HEAD, _MOST_CELLS = 32 * 2**20, 2**16, 4_000_000
_MOST_STEPS = 2**53

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


def headlines(names: Iterable[str]) -> list[str]:
    """Those of some metrics that a run is known by, the first one first."""
    given = set(names)
    return [name for name in HEADLINES if name in given]


def headline(metrics: Mapping[str, float]) -> tuple[str, float] | tuple[None, None]:
    """The metric that stands for a run, with its value."""
    return next(((name, metrics[name]) for name in headlines(metrics)), (None, None))


def compared(names: Iterable[str], most: int = 4) -> list[str]:
    """The metrics that a sweep is compared by: of test, else the best ones, else those on val, else all."""
    given = list(dict.fromkeys(names))
    for prefix in ("test/", "best/", "val/", ""):
        if chosen := [name for name in given if name.startswith(prefix)]:
            return [*headlines(chosen), *(name for name in chosen if name not in HEADLINES)][:most]
    return []


def read_cells(path: Path) -> Iterator[dict[str, str]]:
    """The rows of metrics.csv as text, without a last row that is being written or that a kill has torn.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is no file, too large, or a row has no step.
    """
    head, *lines = Folder(path.parent).lines(path.name, most=_MOST_BYTES) or [""]
    if len(head) > _MOST_HEAD:
        raise CheckpointError(f"{path} is damaged (a head of {len(head):,} characters); train again")
    columns, left = printable(head).split(","), _MOST_CELLS
    for line in lines:
        cells = line.split(",")
        left -= len(cells) - cells.count("")
        if left < 0:
            raise CheckpointError(f"{path} has more than {_MOST_CELLS:,} values; none of vitexp's has; train again")
        if len(cells) == len(columns):
            yield dict(zip(columns, cells, strict=True))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, each with the columns that have a value there. `step` is always there.

    Raises:
        CheckpointError: no such file, or a cell is not a number.
    """
    path = Path(path)
    try:
        rows = [{name: float(cell) for name, cell in row.items() if cell} for row in read_cells(path)]
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path} does not exist; a run that has trained has its metrics there; `vitexp list runs` names the runs"
        ) from None
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is damaged ({error}); each cell is a number or empty; train again") from None
    for row in rows:
        counts = (row.get("step", math.nan), row.get("epoch", 0.0))
        if not all(0 <= count <= _MOST_STEPS for count in counts):
            raise CheckpointError(
                f"{path} is damaged (a row with step {counts[0]:g}, epoch {counts[1]:g}); train again"
            )
    return rows


def series(rows: Sequence[dict[str, float]], name: str) -> tuple["np.ndarray", "np.ndarray"]:
    """The steps (n,) at which column `name` has a finite value, and the values (n,)."""
    import numpy as np

    points = [(row["step"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return steps, values
