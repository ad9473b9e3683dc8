"""Sizes that images are shown at: the paper's distributions, aspects kept, whole patches."""

import pytest
import torch

from vitexp import seeding
from vitexp.data.pack.resolution import Resolution, boxes, grids_of, shrunk
from vitexp.errors import ConfigError

KEYS = seeding.sample_keys(0, 0, torch.arange(20_000))
SETTINGS = {"kind": "uniform", "of": "side", "low": 0.25, "high": 1.5, "mean": -0.5, "std": 1.0}


def drawn(**options):
    return Resolution(**{**SETTINGS, **options}).draw(KEYS, 256) / 256


def test_the_papers_distributions():
    even, low = drawn(), drawn(kind="normal")
    assert even.mean() == pytest.approx(0.875, abs=0.01)
    assert low.mean() < even.mean()
    truncated = torch.distributions.Normal(-0.5, 1.0).sample((400_000,))
    truncated = truncated[truncated.abs() <= 1]
    expected = 0.25 + (truncated.mean() + 1) / 2 * 1.25
    assert low.mean() == pytest.approx(float(expected), abs=0.01)
    for sides in (even, low, drawn(of="area")):
        assert sides.min() >= 0.25 - 1e-9
        assert sides.max() <= 1.5 + 1e-9
    areas = drawn(of="area") ** 2
    assert areas.mean() == pytest.approx((0.25**2 + 1.5**2) / 2, abs=0.01)
    assert Resolution(**{**SETTINGS, "kind": "native"}).draw(KEYS, 256) is None


def test_area_and_aspect_are_kept_to_a_patch():
    sizes = torch.tensor([[480, 640], [500, 333], [64, 64], [1000, 120]])
    resolution = torch.tensor([160.0, 200.0, 96.0, 128.0]).double()
    grids = grids_of(sizes, resolution, 16)
    for size, side, grid in zip(sizes.tolist(), resolution.tolist(), grids.tolist(), strict=True):
        scale = side / (size[0] * size[1]) ** 0.5
        assert all(abs(cells - scale * pixels / 16) <= 0.5 for cells, pixels in zip(grid, size, strict=True))
    assert grids_of(sizes, None, 16).tolist() == [[30, 40], [31, 21], [4, 4], [62, 8]]
    assert grids_of(torch.tensor([[1, 900]]), torch.tensor([48.0]).double(), 16).tolist() == [[1, 90]]


@pytest.mark.parametrize(("grid", "cells"), [((20, 30), 256), ((1, 900), 64), ((300, 2), 64), ((9, 9), 1)])
def test_what_is_too_long_is_shown_smaller(grid, cells):
    rows, columns = shrunk(grid, cells)
    assert rows >= 1
    assert columns >= 1
    assert rows * columns <= cells
    assert (rows, columns) == {256: (13, 19), 1: (1, 1), 64: (1, 64) if grid[0] == 1 else (64, 1)}[cells]
    assert shrunk((2, 3), 64) == (2, 3)


def test_crops_change_the_aspect_and_stay_inside():
    sizes = torch.tensor([[32, 32]]).expand(len(KEYS), 2)
    cut = boxes(sizes, KEYS, aspect=0.3, centred=False)
    corner, box = cut[:, :2], cut[:, 2:]
    assert (corner >= 0).all()
    assert (corner + box <= 32).all()
    assert (box.amax(dim=1) == 32).all()
    aspect = (box[:, 1] / box[:, 0]).log()
    assert aspect.std() == pytest.approx(0.3, abs=0.02)
    assert boxes(sizes, KEYS, aspect=0.0, centred=False)[0].tolist() == [0, 0, 32, 32]
    still = boxes(sizes, KEYS, aspect=0.3, centred=True)
    assert torch.equal(still[:, 2:], box)
    assert (still[:, :2] == (32 - box) // 2).all() or ((still[:, :2] - (32 - box) / 2).abs() <= 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "even"}, "kind=even is unknown"),
        ({"of": "width"}, "of=width is unknown"),
        ({"low": 2.0}, "low=2.0 high=1.5"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ConfigError, match=message):
        Resolution(**{**SETTINGS, **options})
