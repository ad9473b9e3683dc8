"""Stems map images to grids of the size they promise."""

import pytest
import torch

from tests.tiny import conv_stem, patch_stem
from vitexp.errors import ConfigError
from vitexp.layer.patch_embed import PatchEmbed, patch_grid


@pytest.mark.parametrize("make", [patch_stem, conv_stem])
@pytest.mark.parametrize("patch_size", [1, 2, 4, 8, 16])
def test_stem_shape(make, patch_size):
    stem = make(patch_size)(in_channels=3, dim=6)
    assert stem.patch_size == patch_size
    height, width = patch_grid((32, 16), patch_size)
    assert stem(torch.randn(2, 3, 32, 16)).shape == (2, 6, height, width)


def test_patches_do_not_overlap():
    stem = PatchEmbed(in_channels=1, dim=4, patch_size=4)
    assert stem.projection.bias.abs().max() == 0
    images = torch.randn(1, 1, 8, 8)
    changed = images.clone()
    changed[..., :4, 4:] += 1
    differs = (stem(images) != stem(changed)).any(dim=1)[0]
    assert differs.tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("image_size", "patch_size", "sizes"),
    [((30, 32), 4, (28, 32)), ((2, 4), 4, (4, 8)), ((224, 225), 16, (224, 240)), ((0, 4), 4, (4, 8))],
)
def test_grid_refuses_what_does_not_divide(image_size, patch_size, sizes):
    below, above = sizes
    with pytest.raises(ConfigError, match=f"multiple of {patch_size}; use size={below} or size={above}$"):
        patch_grid(image_size, patch_size)
