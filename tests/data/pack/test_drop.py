"""Shares of tokens that are left out: the paper's distributions; which tokens go is a function of the key."""

import math

import pytest
import torch

from vitexp import seeding
from vitexp.data.pack.drop import RATE, Drop, kept_counts, kept_tokens
from vitexp.errors import ConfigError

COUNT = 100_000
KEYS = seeding.sample_keys(0, 0, torch.arange(COUNT))
SETTINGS = {"kind": "none", "mean": 0.5, "max": 0.9, "low": 0.2, "high": 0.8, "midpoint": 2.0, "width": -0.5}


def rates(cells=None, seen=None, **options):
    cells = torch.full((COUNT,), 64) if cells is None else cells
    seen = torch.zeros(COUNT) if seen is None else seen
    return Drop(**{**SETTINGS, **options}).rates(KEYS, cells=cells, ends=(16.0, 256.0), seen=seen)


def test_none_and_constant():
    assert rates().max() == 0
    assert (rates(kind="constant") == 0.5).all()


def test_beta():
    drawn = rates(kind="beta")
    assert drawn.mean() == pytest.approx(0.5, abs=0.005)
    assert drawn.max() <= 0.9
    share, middle = drawn / 0.9, 0.5 / 0.9
    assert share.var() == pytest.approx(0.3 * middle * (1 - middle), rel=0.02)


def test_resolution_dependent():
    cells = torch.linspace(16, 256, COUNT).long()
    drawn = rates(kind="resolution", cells=cells)
    line = 0.2 + 0.6 * (cells - 16) / 240
    assert (drawn - line).abs().max() <= 2 * 0.02 + 1e-6
    assert (drawn - line).std() == pytest.approx(0.02 * 0.88, rel=0.02)  # a normal that is cut at 2 deviations

    noise, share = drawn - line, seeding.uniform(KEYS, RATE)
    assert noise[share.argmax()] > 0.03 > -0.03 > noise[share.argmin()], "a larger draw drops more"


def test_schedule():
    seen = torch.tensor([2.0]).expand(COUNT)
    assert rates(kind="schedule", seen=seen)[0] == pytest.approx(0.5)
    assert rates(kind="schedule", seen=seen - 2)[0] == pytest.approx(0.2 + 0.6 / (1 + math.exp(-4)))
    assert rates(kind="schedule", seen=seen + 9)[0] == pytest.approx(0.2, abs=1e-4)


def test_at_least_one_token_stays():
    assert kept_counts(torch.tensor([1, 4, 10]), torch.tensor([0.99, 0.9, 0.5])).tolist() == [1, 1, 5]


def test_which_tokens_stay():
    assert kept_tokens(3, 9, 9) is None
    kept = kept_tokens(3, 9, 4)
    assert torch.equal(kept, kept_tokens(3, 9, 4))
    assert kept.tolist() == sorted(set(kept.tolist()))
    often = torch.zeros(9)
    for key in range(900):
        often[kept_tokens(key, 9, 3)] += 1
    assert often.min() > 230
    assert often.max() < 370


@pytest.mark.parametrize("options", [{"kind": "some"}, {"kind": "beta", "mean": 0.95}, {"high": 1.0}, {"width": 0.0}])
def test_mistakes(options):
    with pytest.raises(ConfigError, match=r"data\.packing\.drop"):
        Drop(**{**SETTINGS, **options})
