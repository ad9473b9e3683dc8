"""The MLP is two linear maps around the exact GELU."""

import math

import torch

from vitexp.layer.init import xavier_
from vitexp.layer.mlp import Mlp


def test_formula():
    mlp = Mlp(6, 10)
    x = torch.randn(2, 3, 6)
    hidden = mlp.fc1(x)
    expected = mlp.fc2(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))
    torch.testing.assert_close(mlp(x), expected)


def test_dropout_only_in_training():
    mlp = Mlp(6, 10, dropout=0.5)
    x = torch.randn(2, 3, 6)
    assert not torch.equal(mlp.train()(x), mlp(x))
    assert torch.equal(mlp.eval()(x), mlp(x))


def test_stacked_projections_start_as_single_ones():
    single, stacked = torch.nn.Linear(64, 64), torch.nn.Linear(64, 192)
    xavier_(single)
    xavier_(stacked, parts=3)
    bound = math.sqrt(6 / 128)
    for linear in (single, stacked):
        assert bound * 0.98 < linear.weight.abs().max().item() <= bound
        assert linear.bias.abs().max() == 0
