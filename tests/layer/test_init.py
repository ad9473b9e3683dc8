"""Starting values: the spread that each law gives, biases of zero."""

import math

import pytest
import torch
from torch import nn

from vitexp.layer.init import lecun_, xavier_


@pytest.mark.parametrize(("options", "fan_out"), [({}, 192), ({"parts": 3}, 64)])
def test_xavier_is_uniform_and_centred(options, fan_out):
    torch.manual_seed(0)
    linear = nn.Linear(64, 192)
    xavier_(linear, **options)
    bound = math.sqrt(6 / (64 + fan_out))
    assert 0.98 * bound < linear.weight.max() <= bound
    assert -bound <= linear.weight.min() < -0.98 * bound
    assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert linear.bias.abs().max() == 0
    xavier_(nn.Linear(4, 4, bias=False))


def test_lecun_keeps_the_variance():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 64, 4)
    lecun_(conv)
    assert conv.weight.std().item() == pytest.approx((8 * 4 * 4) ** -0.5, rel=0.03)
    assert conv.bias.abs().max() == 0
    lecun_(nn.Conv2d(8, 1, 4, bias=False))
