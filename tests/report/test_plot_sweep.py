"""A sweep over a number becomes curves with means and deviations over seeds; other sweeps have no such picture."""

from pathlib import Path

import pytest
from PIL import Image

from vitexp.report.plot_sweep import against, analyses_against, curves_of, swept_number


def job(regime: str, lr: str, seed: int, score: float | None) -> dict:
    metrics = {} if score is None else {"test/top1": score}
    return {"overrides": {"regime": regime, "optimizer.lr": lr, "seed": str(seed)}, "metrics": metrics}


ROWS = [
    job("head", "0.1", 0, 0.5),
    job("head", "0.1", 1, 0.7),
    job("head", "0.01", 0, 0.4),
    job("full", "0.01", 0, 0.8),
    job("full", "1", 0, None),
]


def test_means_and_deviations_over_seeds_by_rising_value() -> None:
    assert swept_number(ROWS) == "optimizer.lr"
    found = curves_of(ROWS, "optimizer.lr")
    assert found["head"] == [(0.01, 0.4, 0.0), (0.1, pytest.approx(0.6), pytest.approx(0.02**0.5))]
    assert found["full"] == [(0.01, 0.8, 0.0)]


def test_the_picture_is_written(tmp_path: Path) -> None:
    out = against(ROWS, tmp_path / "sweep.png", title="a sweep")
    assert out is not None
    pixels = Image.open(out).convert("L")
    assert pixels.size == (1200, 750)
    assert pixels.getextrema()[0] < 100


def test_no_number_no_picture(tmp_path: Path) -> None:
    rows = [{"overrides": {"seed": str(seed), "regime": "head"}, "metrics": {"test/top1": 0.5}} for seed in range(5)]
    assert against(rows, tmp_path / "sweep.png") is None
    assert not list(tmp_path.iterdir())


def test_headline_values_of_analyses_have_a_picture_each(tmp_path: Path) -> None:
    rows = [
        {
            "overrides": {"model.depth": str(depth), "attention": attention},
            "metrics": {f"analysis/similarity/{kind}/similar_blocks": float(depth), "analysis/heads/mean": 0.5},
        }
        for depth in (4, 8, 12)
        for attention, kind in (("softmax", "softmax"), ("reattention", "mixed"))
    ]
    written = analyses_against(rows, tmp_path)
    assert [path.name for path in written] == ["sweep_similarity.png", "sweep_heads.png"]
    assert all(path.stat().st_size > 5_000 for path in written)
    assert analyses_against(rows[:4], tmp_path / "none") == []
    curves = curves_of(rows, "model.depth", "analysis/similarity/mixed/similar_blocks")
    assert curves == {"reattention": [(4.0, 4.0, 0.0), (8.0, 8.0, 0.0), (12.0, 12.0, 0.0)]}
