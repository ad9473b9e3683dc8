"""A 1x1 convolution as a matrix product is torch's convolution: outputs, gradients, memory layout."""

import pytest
import torch
from torch import nn

from vitexp.layer.point_conv import PointConv


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_equal_to_torchs_convolution(bias: bool, layout: torch.memory_format) -> None:
    ours, theirs = PointConv(6, 4, bias=bias), nn.Conv2d(6, 4, 1, bias=bias)
    theirs.load_state_dict(ours.state_dict())  # same names, same shapes
    images = torch.randn(2, 6, 5, 3).to(memory_format=layout)
    mine, other = images.clone(memory_format=torch.preserve_format).requires_grad_(), images.clone().requires_grad_()
    out, expected = ours(mine), theirs(other)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert out.is_contiguous(memory_format=layout)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("count", "multiplied"), [(2, True), (16, False)])
def test_few_channels_last_images_are_multiplied_not_convolved(count: int, multiplied: bool) -> None:
    layer, images = PointConv(6, 4, bias=True), torch.randn(count, 6, 5, 3).to(memory_format=torch.channels_last)
    with torch.profiler.profile() as profile:
        layer(images)
    names = {event.key for event in profile.key_averages()}
    assert ("aten::linear" in names) == multiplied
    assert any("conv" in name for name in names) != multiplied
