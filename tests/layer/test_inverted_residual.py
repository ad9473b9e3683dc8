"""Inverted residuals: shapes, when the input is added, and the rounding of widths."""

import pytest
import torch
from torch import nn

from vitexp.layer.inverted_residual import InvertedResidual, nearest_multiple
from vitexp.layer.silu import Silu


@pytest.mark.parametrize(("channels", "stride", "residual"), [(8, 1, True), (8, 2, False), (16, 1, False)])
def test_input_is_added_where_shapes_agree(channels, stride, residual):
    block = InvertedResidual(8, channels, stride=stride, expansion=2).eval()
    nn.init.zeros_(block.project.norm.weight)
    nn.init.normal_(block.project.norm.bias)
    x = torch.randn(2, 8, 6, 6)
    out = block(x)
    assert out.shape == (2, channels, 6 // stride, 6 // stride)
    expected = block.project.norm.bias[:, None, None].expand_as(out)
    torch.testing.assert_close(out, x + expected if residual else expected)


def test_hidden_width_and_activations():
    block = InvertedResidual(12, 12, stride=1, expansion=4)
    assert block.depthwise.conv.groups == block.depthwise.conv.in_channels == 48
    assert isinstance(block.expand.activation, Silu)
    assert isinstance(block.project.activation, nn.Identity)


@pytest.mark.parametrize(("value", "expected"), [(32, 32), (33, 32), (36, 40), (3, 8), (10, 16), (96, 96)])
def test_rounding_of_widths(value, expected):
    """10 -> 16: the nearest multiple, 8, would be less than nine tenths."""
    assert nearest_multiple(value, 8) == expected
