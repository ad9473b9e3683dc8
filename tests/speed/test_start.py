"""The start of a run is seen from outside, by the first row of its metrics."""

from pathlib import Path

import pytest
from commands import command

from vitexp.errors import VitexpError
from vitexp.speed import start


def test_a_row_below_the_columns_is_a_step(tmp_path: Path) -> None:
    assert not start._has_row(tmp_path)
    (tmp_path / "last").mkdir()
    file = tmp_path / "last" / "metrics.csv"
    file.write_text("step,epoch\n")
    assert not start._has_row(tmp_path)
    file.write_text("step,epoch\n1,0\n")
    assert start._has_row(tmp_path)


def test_a_run_that_cannot_start_is_said_to() -> None:
    with pytest.raises(VitexpError, match="did you mean"):
        start.first_step(["modle=vit_nano"])


def test_the_ratio_is_of_our_time_to_the_imports(monkeypatch) -> None:
    monkeypatch.setattr(start, "seconds_of", lambda arguments: 2.0)
    monkeypatch.setattr(start, "first_step", lambda overrides: 2.5)
    report = start.time_start(command("bs=32", "benchmark.repeats=2"))
    assert report.ratios == {"first step over import": 1.25}
    assert report.rows[1][0] == "vitexp data.batch_size=32"
