"""DeepViT's stem: 7x7 and 3x3 convolutions with norm and ReLU, then patches; it halves the image from 16 on."""

import pytest
import torch
from torch.nn import functional as F

from vitexp.errors import ConfigError
from vitexp.layer.deep_stem import DeepStem


@pytest.mark.parametrize(("patch_size", "stride"), [(1, 1), (4, 1), (15, 1), (16, 2), (32, 2)])
def test_layers_and_strides(patch_size, stride):
    stem, images = DeepStem(in_channels=3, dim=5, channels=4, patch_size=patch_size), torch.randn(2, 3, 32, 64)
    x = F.conv2d(images, stem.conv1.conv.weight, stride=stride, padding=3)
    x = F.batch_norm(x, None, None, training=True).relu()
    x = F.batch_norm(F.conv2d(x, stem.conv2.conv.weight, padding=1), None, None, training=True).relu()
    rest = patch_size // stride
    torch.testing.assert_close(stem(images), F.conv2d(x, stem.projection.weight, stem.projection.bias, stride=rest))
    assert stem.conv1.conv.weight.shape == (4, 3, 7, 7)
    assert stem.conv2.conv.weight.shape == (4, 4, 3, 3)
    assert stem(images).shape == (2, 5, 32 // patch_size, 64 // patch_size)


@pytest.mark.parametrize("patch_size", [0, 17])
def test_patches_that_cannot_be_reached(patch_size):
    with pytest.raises(ConfigError, match=f"patch_size={patch_size} cannot be reached: .*; use"):
        DeepStem(in_channels=3, dim=5, channels=4, patch_size=patch_size)
