"""Unfold and fold by the formula of the paper, exact inverses of each other."""

import pytest
import torch

from vitexp.layer.pixel_sets import join_sets, split_sets


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(2, 2), (4, 6), (8, 2)])
def test_sets_follow_the_formula(size, channels_last):
    x = torch.arange(2.0 * 3 * size[0] * size[1]).view(2, 3, *size)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    tokens = split_sets(x, 2)
    assert tokens.shape == (2, 4, size[0] * size[1] // 4, 3)
    for row in range(size[0]):
        for column in range(size[1]):
            p = row % 2 * 2 + column % 2
            n = row // 2 * (size[1] // 2) + column // 2
            assert torch.equal(tokens[:, p, n], x[:, :, row, column])
    assert torch.equal(join_sets(tokens, 2, size), x)


def test_joined_map_is_channels_last():
    assert join_sets(torch.randn(2, 4, 4, 3), 2, (4, 4)).is_contiguous(memory_format=torch.channels_last)


def test_larger_patches():
    x = torch.randn(1, 2, 6, 9)
    tokens = split_sets(x, 3)
    assert torch.equal(tokens[0, 5, 4], x[0, :, 4, 5])  # row 1, column 2 of the patch in row 1, column 1
    assert torch.equal(join_sets(tokens, 3, (6, 9)), x)
