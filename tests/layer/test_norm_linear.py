"""A normalised classifier folds into one linear layer."""

import torch
from torch import nn

from vitexp.layer.norm_linear import NormLinear


def test_folded_equals_unfolded_and_has_no_norm() -> None:
    torch.manual_seed(0)
    head = NormLinear(6, 4)
    head(torch.randn(8, 6) * 3 + 1)  # statistics of a batch
    nn.init.normal_(head.norm.weight)
    nn.init.normal_(head.norm.bias)
    nn.init.normal_(head.linear.bias)
    x = torch.randn(5, 6)
    expected = head.eval()(x)
    by_hand = (x - head.norm.running_mean) / (head.norm.running_var + 1e-5).sqrt() * head.norm.weight + head.norm.bias
    torch.testing.assert_close(expected, by_hand @ head.linear.weight.T + head.linear.bias)
    head.fuse()
    torch.testing.assert_close(head(x), expected, rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in head.parameters()) == 6 * 4 + 4
    head.fuse()
    torch.testing.assert_close(head(x), expected, rtol=1e-5, atol=1e-6)


def test_starts_small_with_a_zero_bias() -> None:
    torch.manual_seed(0)
    head = NormLinear(400, 100)
    assert abs(float(head.linear.weight.detach().std()) - 0.02) < 1e-3
    assert head.linear.bias.abs().max() == 0
