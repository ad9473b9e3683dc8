"""A folded brick gives the same output, in any layout, and has no norm left."""

from functools import partial

import pytest
import torch
from torch import nn

from tests.tiny import conv_stem, tiny_vit
from vitexp.layer.conv_norm import ConvNorm, fused_conv


def trained(module: nn.Module) -> nn.Module:
    """Running statistics and affine values that a fold could get wrong."""
    torch.manual_seed(0)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module.eval()


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("activation", [None, nn.ReLU, partial(nn.SiLU, inplace=True)])
def test_folded_equals_unfolded(groups, activation):
    brick = trained(ConvNorm(4, 8, 3, stride=2, groups=groups, activation=activation))
    images = torch.randn(2, 4, 9, 7)
    expected = brick(images)
    brick.fuse()
    torch.testing.assert_close(brick(images), expected, rtol=1e-5, atol=1e-6)
    assert not [m for m in brick.modules() if isinstance(m, nn.BatchNorm2d)]
    folded = brick.conv
    brick.fuse()
    assert brick.conv is folded


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"groups": 2}, {"kernel_size": 3, "stride": 2, "groups": 2}, {"kernel_size": 5}]
)
def test_is_a_convolution_that_pads_by_half_its_kernel(options):
    brick, images = ConvNorm(4, 6, **options).eval(), torch.randn(2, 4, 8, 8)
    kernel, stride, groups = (options.get(key, 1) for key in ("kernel_size", "stride", "groups"))
    assert brick.conv.weight.shape == (6, 4 // groups, kernel, kernel)
    assert brick.conv.bias is None
    expected = nn.functional.conv2d(images, brick.conv.weight, stride=stride, padding=kernel // 2, groups=groups)
    torch.testing.assert_close(brick(images), expected / (1 + 1e-5) ** 0.5)
    assert brick(images).shape == (2, 6, 8 // stride, 8 // stride)


def test_a_bias_is_folded_too():
    conv, norm = nn.Conv2d(3, 4, 3), trained(nn.Sequential(nn.BatchNorm2d(4)))[0]
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fused_conv(conv, norm)(images), norm(conv(images)), rtol=1e-5, atol=1e-5)


def test_a_model_folds_its_bricks():
    model = trained(tiny_vit(stem=conv_stem(4)))
    images = torch.randn(2, 3, 16, 16)
    expected = model(images)
    model.fuse()
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def test_training_normalises_by_the_batch():
    brick = ConvNorm(3, 6, 3).train()
    out = brick(torch.randn(8, 3, 5, 5))
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)


def test_a_brick_of_weight_zero_starts_as_nothing_and_learns():
    brick = ConvNorm(3, 6, 3, zero=True).train()
    out = brick(torch.randn(8, 3, 5, 5))
    assert out.abs().max() == 0
    (out - 1).square().sum().backward()
    assert brick.norm.bias.grad.abs().sum() > 0
