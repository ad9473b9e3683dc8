"""Reading metrics.csv."""

from pathlib import Path

import numpy as np
import pytest

from vitexp.errors import CheckpointError
from vitexp.report.metrics import COLUMNS, read_metrics, series


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_empty_cells_are_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.csv", "step,lr,val/top1\n1,0.5,\n2,,0.25\n")
    assert read_metrics(path) == [{"step": 1, "lr": 0.5}, {"step": 2, "val/top1": 0.25}]


@pytest.mark.parametrize("torn", ["3", "3,0.1", "3,0.12,0", "3,0.12,0.5"])
def test_torn_last_row_is_left_out(tmp_path: Path, torn: str) -> None:
    path = write(tmp_path / "metrics.csv", f"step,lr,val/top1\n1,0.5,\n{torn}")
    assert [row["step"] for row in read_metrics(path)] == [1]


def test_missing_and_damaged_files_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_metrics(tmp_path / "metrics.csv")
    with pytest.raises(CheckpointError, match="damaged"):
        read_metrics(write(tmp_path / "metrics.csv", "step,lr\n1,abc\n"))


def test_series_skips_what_is_absent_or_not_finite() -> None:
    rows = [{"step": 1, "a": 5.0}, {"step": 2}, {"step": 3, "a": float("nan")}, {"step": 4, "a": 6.0}]
    steps, values = series(rows, "a")
    np.testing.assert_array_equal(steps, [1, 4])
    np.testing.assert_array_equal(values, [5, 6])
    assert series(rows, "b")[0].shape == (0,)


def test_columns_are_documented_in_one_line_each() -> None:
    assert list(COLUMNS)[:2] == ["step", "epoch"]
    assert all(meaning and "\n" not in meaning for meaning in COLUMNS.values())
