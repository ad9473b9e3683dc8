"""Positions are interpolated as each origin's own code does it."""

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from vitexp.errors import ConfigError
from vitexp.layer.position import METHODS, resize_position


def table(grid, num_prefix=1, dim=3):
    torch.manual_seed(0)
    return torch.randn(1, num_prefix + grid[0] * grid[1], dim)


@pytest.mark.parametrize(("old", "new"), [((7, 7), (12, 12)), ((7, 7), (24, 24)), ((12, 12), (7, 7)), ((3, 5), (6, 4))])
def test_official_equals_scipy_zoom(old, new):
    positions = table(old)
    resized = resize_position(positions, old_grid=old, new_grid=new, num_prefix=1, method="official")
    grid = positions[0, 1:].reshape(*old, -1).numpy()
    expected = zoom(grid, (new[0] / old[0], new[1] / old[1], 1), order=1)
    np.testing.assert_allclose(resized[0, 1:].reshape(*new, -1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options"), [("timm", {}), ("timm_npz", {"interpolation": "bilinear", "antialias": False})]
)
def test_timm_methods_equal_timm(method, options):
    from timm.layers import resample_abs_pos_embed

    positions = table((7, 7))
    resized = resize_position(positions, old_grid=(7, 7), new_grid=(4, 9), num_prefix=1, method=method)
    torch.testing.assert_close(resized, resample_abs_pos_embed(positions, [4, 9], **options))


@pytest.mark.parametrize("method", METHODS)
def test_prefix_stays_and_identity(method):
    positions = table((4, 6), num_prefix=2)
    same = resize_position(positions, old_grid=(4, 6), new_grid=(4, 6), num_prefix=2, method=method)
    assert torch.equal(same, positions)
    resized = resize_position(positions, old_grid=(4, 6), new_grid=(8, 3), num_prefix=2, method=method)
    assert resized.shape == (1, 2 + 24, 3)
    assert torch.equal(resized[:, :2], positions[:, :2])


def test_methods_differ():
    results = [
        resize_position(table((7, 7)), old_grid=(7, 7), new_grid=(5, 5), num_prefix=1, method=method)
        for method in METHODS
    ]
    for index, first in enumerate(results):
        assert all((first - second).abs().max() > 1e-3 for second in results[index + 1 :])


def test_unknown_method():
    with pytest.raises(ConfigError, match="official, timm_npz, timm, hf"):
        resize_position(table((2, 2)), old_grid=(2, 2), new_grid=(3, 3), num_prefix=1, method="bicubik")
