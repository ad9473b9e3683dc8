"""The start of a run is seen from outside, by the first row of its metrics."""

import sys
from pathlib import Path

import pytest

from tests.commands import command
from vitexp.benchmark import start
from vitexp.config.compose import conf_dir
from vitexp.errors import VitexpError


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
    monkeypatch.setattr(start, "seconds_of", lambda arguments, codes=(0,): 2.0 if "-c" in arguments else 3.0)
    monkeypatch.setattr(start, "first_step", lambda overrides: 2.5)
    report = start.time_start(command("bs=32", "benchmark.repeats=2"))
    assert report.ratios["first step over import"] == 1.25
    assert report.ratios["vitexp --help over composing"] == pytest.approx(1.5)
    assert len(report.ratios) == 1 + len(start.ANSWERS)
    assert report.rows[1][0] == "vitexp data.batch_size=32"


def test_hydra_composes_these_files_without_us() -> None:
    assert start.seconds_of([sys.executable, "-c", start.COMPOSING, str(conf_dir())]) > 0
    assert start._answer("lr=abc") > 0  # a mistake is an answer too
    with pytest.raises(VitexpError, match="ended with 3"):
        start.seconds_of([sys.executable, "-c", "raise SystemExit(3)"])
