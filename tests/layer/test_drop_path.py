"""Stochastic depth drops whole samples and keeps the mean."""

import pytest
import torch

from vitexp.errors import ConfigError
from vitexp.layer.drop_path import DropPath


def test_samples_are_kept_whole_and_rescaled():
    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    by_sample = dropped.flatten(1)
    assert torch.equal(by_sample.amin(1), by_sample.amax(1))
    assert abs(dropped.mean().item() - 1) < 0.03


def test_identity_in_evaluation_and_at_rate_zero():
    x = torch.randn(5, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_same_seed_same_drop():
    layer = DropPath(0.5).train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(layer(torch.ones(64, 1)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rate_is_checked(rate):
    with pytest.raises(ConfigError, match=r"\[0, 1\)"):
        DropPath(rate)
