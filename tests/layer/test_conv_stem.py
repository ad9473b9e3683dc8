"""The convolutional stem: 3x3 convolutions with norm and ReLU, the last of which halve the image, then a linear map."""

import pytest
import torch
from torch import nn

from vitexp.errors import ConfigError
from vitexp.layer.conv_stem import ConvStem


@pytest.mark.parametrize(
    ("channels", "patch_size", "strides", "rest"),
    [((4, 6), 1, (1, 1), 1), ((4, 6), 2, (1, 2), 1), ((4, 6), 4, (2, 2), 1), ((4,), 8, (2,), 4), ((), 4, (), 4)],
)
def test_layers_and_strides(channels, patch_size, strides, rest):
    stem, images = ConvStem(in_channels=3, dim=5, channels=channels, patch_size=patch_size), torch.randn(2, 3, 16, 24)
    assert [layer.conv.out_channels for layer in stem.layers] == list(channels)
    x = images
    for layer, stride in zip(stem.layers, strides, strict=True):
        x = nn.functional.conv2d(x, layer.conv.weight, stride=stride, padding=1)
        x = nn.functional.batch_norm(x, None, None, training=True).relu()
    expected = nn.functional.conv2d(x, stem.projection.weight, stem.projection.bias, stride=rest)
    torch.testing.assert_close(stem(images), expected)
    assert stem.patch_size == patch_size
    assert stem.projection.bias.abs().max() == 0
    assert stem(images).shape == (2, 5, 16 // patch_size, 24 // patch_size)


@pytest.mark.parametrize("patch_size", [0, 6])
def test_takes_powers_of_two(patch_size):
    with pytest.raises(ConfigError, match=f"patch_size={patch_size} cannot be reached by halving; .* power of two"):
        ConvStem(in_channels=3, dim=8, channels=[4], patch_size=patch_size)
