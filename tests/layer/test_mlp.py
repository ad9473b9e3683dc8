"""The MLP is two linear maps around the exact GELU."""

import math

import torch

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


def test_starts_xavier_with_tiny_biases():
    torch.manual_seed(0)
    mlp = Mlp(64, 192)
    bound = math.sqrt(6 / 256)
    for linear in (mlp.fc1, mlp.fc2):
        assert 0.98 * bound < linear.weight.abs().max() <= bound
        assert 0.5e-6 < linear.bias.std() < 1.5e-6
