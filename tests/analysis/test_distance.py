"""Distances have the closed forms of the fact sheet, and heads that look near are told from those that look far."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.analysis.subjects import subject
from tests.tiny import tiny_vit
from vitexp.analysis.distance import Cells, Distance
from vitexp.errors import ConfigError


class Grid(nn.Module):
    def __init__(self, grid: tuple[int, int], num_prefix: int) -> None:
        super().__init__()
        self.grid, self.num_prefix = grid, num_prefix
        self.embed = self.pool = lambda x: x  # a model of tokens, as SupportsTokens asks


def distance(weights: Tensor, grid: tuple[int, int], *, prefix: int = 0, size: int = 224, renormalise: bool = False):
    cells = Cells(Grid(grid, prefix), weights, (size, size))
    return cells.mean_distance(weights, renormalise=renormalise)


@pytest.mark.parametrize(("side", "expected"), [(7, 115.5029), (14, 116.4922)])
def test_uniform_attention(side: int, expected: float) -> None:
    count = side * side
    uniform = torch.full((1, 2, count, count), 1 / count)
    torch.testing.assert_close(distance(uniform, (side, side)), torch.tensor([expected] * 2), atol=1e-3, rtol=0)


def test_identity_is_zero_and_a_step_is_a_cell() -> None:
    identity = torch.eye(16)[None, None]
    assert float(distance(identity, (4, 4), size=32)) == 0.0
    step = torch.zeros(16, 16)
    for cell in range(16):
        step[cell, cell + 1 if cell % 4 < 3 else cell - 1] = 1
    assert float(distance(step[None, None], (4, 4), size=32)) == pytest.approx(8.0)


def test_the_class_token_is_left_out_and_renormalised_on_demand() -> None:
    weights = torch.full((1, 1, 10, 10), 0.05)
    weights[..., 0] = 0.55
    plain = distance(weights, (3, 3), prefix=1, size=9)
    whole = distance(weights, (3, 3), prefix=1, size=9, renormalise=True)
    torch.testing.assert_close(plain, whole * 0.45)
    uniform = distance(torch.full((1, 1, 9, 9), 1 / 9), (3, 3), size=9)
    torch.testing.assert_close(whole, uniform)


def test_windows_measure_in_pixels_of_the_image() -> None:
    """Four windows of 7 x 7 over 224 pixels: a cell is 16 pixels."""
    identity_shifted = torch.eye(49).roll(1, dims=1)
    identity_shifted[6::7] = torch.eye(49)[6::7]
    weights = identity_shifted.expand(4, 3, 49, 49)
    torch.testing.assert_close(distance(weights, (7, 7)), torch.full((3,), 16 * 6 / 7))


def test_no_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 queries are no grid"):
        distance(torch.rand(1, 1, 5, 5), (2, 2))


def test_a_model_is_measured_and_drawn(tmp_path: Path) -> None:
    analysis = Distance(renormalise=True)
    measured = analysis.measure(subject(tiny_vit(depth=2)))
    values = analysis.summary(measured)
    uniform = torch.full((1, 1, 16, 16), 1 / 16)
    expected = float(distance(uniform, (4, 4), size=16))
    assert values["mean_pixels"] == pytest.approx(expected, rel=0.2), "an untrained map is nearly uniform"
    assert len(analysis.rows(measured)) == 4
    analysis.draw({"untrained": measured}, tmp_path / "distance.png", "tiny")
    assert (tmp_path / "distance.png").stat().st_size > 5_000
    assert (tmp_path / "distance.svg").is_file()
