"""Windows cut and join without loss, and a shifted, padded window attends what the paper's figure says."""

import pytest
import torch

from vitexp.errors import ConfigError
from vitexp.layer.window import Windows, clamp_window, reorder

CASES = [  # grid, window, shift
    ((8, 8), (4, 4), (0, 0)),
    ((8, 8), (4, 4), (2, 2)),
    ((8, 12), (4, 3), (2, 1)),
    ((7, 10), (4, 4), (2, 2)),
    ((7, 10), (4, 4), (0, 0)),
    ((8, 10), (4, 4), (2, 0)),
    ((4, 4), (4, 4), (0, 0)),
    ((2, 2), (1, 1), (0, 0)),
]


def numbered(grid, batch=2):
    """Each cell carries its row and column, from 1 on, so that padding is told by its zeros."""
    rows, columns = torch.meshgrid(torch.arange(1, grid[0] + 1), torch.arange(1, grid[1] + 1), indexing="ij")
    return torch.stack([rows, columns], dim=-1).float().expand(batch, -1, -1, -1)


@pytest.mark.parametrize("padding", ["masked", "hf", "timm"])
@pytest.mark.parametrize(("grid", "window", "shift"), CASES)
@pytest.mark.parametrize("made_for", ["this", "another"])
def test_join_undoes_cut(grid, window, shift, padding, made_for):
    other = (grid[0] + 5, grid[1] + 3)
    windows = Windows(grid=grid if made_for == "this" else other, window=window, shift=shift, padding=padding)
    x = torch.randn(2, *grid, 3)
    cut = windows.cut(x)
    assert cut.shape[1:] == (window[0] * window[1], 3)
    assert torch.equal(windows.join(cut, grid), x)


@pytest.mark.parametrize(("grid", "window", "shift"), CASES)
def test_cells_attend_their_neighbours_and_no_padding(grid, window, shift):
    """Two cells of the image may attend each other where they share a window of the shifted, uncyclic tiling."""
    windows = Windows(grid=grid, window=window, shift=shift, padding="masked")
    cells = windows.cut(numbered(grid, batch=1))  # (windows, cells, 2)
    mask = windows.mask(grid, 1)
    if mask is None:
        assert shift == (0, 0)
        assert (cells > 0).all()
        return
    real = (cells > 0).all(-1)
    tile = [torch.div(cells[..., a] - 1 - shift[a], window[a], rounding_mode="floor") for a in (0, 1)]
    together = (tile[0][:, :, None] == tile[0][:, None]) & (tile[1][:, :, None] == tile[1][:, None])
    both_real = real[:, :, None] & real[:, None]
    assert torch.equal(mask[:, 0] & both_real, together & both_real)
    assert not (mask[:, 0] & (real[:, :, None] ^ real[:, None])).any()
    assert mask.any(-1).all()  # padding attends padding: no row is empty


def test_mask_repeats_for_each_image():
    windows = Windows(grid=(8, 8), window=(4, 4), shift=(2, 2), padding="masked")
    mask = windows.mask((8, 8), 3)
    assert mask.shape == (12, 1, 16, 16)
    assert torch.equal(mask[:4], mask[8:])


@pytest.mark.parametrize("padding", ["hf", "timm"])
def test_others_attend_padding(padding):
    assert Windows(grid=(7, 7), window=(4, 4), shift=(0, 0), padding=padding).mask((7, 7), 1) is None
    assert Windows(grid=(7, 7), window=(4, 4), shift=(0, 0), padding="masked").mask((7, 7), 1) is not None


def test_whole_map_is_one_window_as_it_is():
    x = torch.randn(2, 4, 4, 3)
    cut = Windows(grid=(4, 4), window=(4, 4), shift=(0, 0), padding="masked").cut(x)
    assert cut.data_ptr() == x.data_ptr()


def test_reorder_has_the_gradient_of_indexing():
    order = torch.randperm(6)
    x = torch.randn(2, 6, 3, dtype=torch.double, requires_grad=True)
    assert torch.equal(reorder(x, order, order.argsort()), x[:, order])
    assert torch.autograd.gradcheck(lambda x: reorder(x, order, order.argsort()), x)


@pytest.mark.parametrize(
    ("grid", "window", "clamp", "expected"),
    [
        ((64, 64), 8, "axis", ((8, 8), (4, 4))),
        ((8, 8), 8, "axis", ((8, 8), (0, 0))),
        ((6, 6), 8, "both", ((6, 6), (0, 0))),
        ((4, 16), 8, "axis", ((4, 8), (0, 4))),
        ((4, 16), 8, "both", ((4, 4), (0, 0))),
        ((9, 16), 7, "both", ((7, 7), (3, 3))),
        ((1, 1), 8, "axis", ((1, 1), (0, 0))),
    ],
)
def test_window_is_no_larger_than_the_map(grid, window, clamp, expected):
    assert clamp_window(grid, window, clamp=clamp) == expected


def test_published_windows_after_clamping():
    """T/256/16: 16, 16, 16, 8 and no shift in the last two stages; 192/12: 12, 12, 12, 6."""
    t16 = [clamp_window((side, side), 16, clamp="both") for side in (64, 32, 16, 8)]
    assert [window[0] for window, _ in t16] == [16, 16, 16, 8]
    assert [shift[0] for _, shift in t16] == [8, 8, 0, 0]
    assert [clamp_window((side, side), 12, clamp="axis")[0][0] for side in (48, 24, 12, 6)] == [12, 12, 12, 6]


def test_errors_say_what_to_type():
    with pytest.raises(ConfigError, match=r"padding=zero is unknown.*use masked, hf or timm"):
        Windows(grid=(4, 4), window=(2, 2), shift=(0, 0), padding="zero")
    with pytest.raises(ConfigError, match="use axis or both"):
        clamp_window((4, 4), 2, clamp="none")
    with pytest.raises(ConfigError, match="use 8"):
        clamp_window((4, 4), 0, clamp="axis")
