"""Positions of rows and columns: coordinates by hand, tables between their entries, waves, and how they combine."""

import math

import pytest
import torch

from vitexp.errors import ConfigError
from vitexp.layer.factorised_position import FactorisedPosition

SHIPPED = {"kind": "learned", "coordinates": "absolute", "max_grid": 5, "combine": "add", "temperature": 100.0}
PLACES, GRID = torch.tensor([[0, 0], [1, 3], [2, 6]]), torch.tensor([[3, 7]]).expand(3, 2)


def build(dim=8, **options):
    torch.manual_seed(0)
    return FactorisedPosition(dim, **{**SHIPPED, "frequency": 3.0, **options})


@pytest.mark.parametrize(
    ("coordinates", "kind", "expected"),
    [
        ("absolute", "sinusoidal", [[0, 0], [1, 3], [2, 6]]),
        ("absolute", "learned", [[0, 0], [1, 2], [2, 4]]),  # seven columns are squeezed into five, three rows are not
        ("fractional", "learned", [[0, 0], [2, 2], [4, 4]]),
        ("fractional", "fourier", [[0, 0], [2, 2], [4, 4]]),
        ("aspect", "learned", [[0, 0], [2 / 3, 2], [4 / 3, 4]]),
    ],
)
def test_coordinates(coordinates, kind, expected):
    torch.testing.assert_close(
        build(coordinates=coordinates, kind=kind).index(PLACES, GRID), torch.tensor(expected).float()
    )


def test_an_image_of_one_cell_is_at_the_first_place():
    one = torch.ones(1, 2, dtype=torch.int64)
    for coordinates in ("absolute", "fractional", "aspect"):
        assert build(coordinates=coordinates).index(0 * one, one).abs().max() == 0


@pytest.mark.parametrize("combine", ["add", "stack", "product"])
def test_tables_are_read_between_their_entries(combine):
    position = build(combine=combine, coordinates="aspect")
    rows, columns = position.rows, position.columns
    assert rows.shape == columns.shape == (5, 4 if combine == "stack" else 8)
    down = torch.stack([rows[0], torch.lerp(rows[0], rows[1], 2 / 3), torch.lerp(rows[1], rows[2], 1 / 3)])
    across = columns[[0, 2, 4]]
    expected = {"add": down + across, "product": down * across, "stack": torch.cat([down, across], dim=-1)}[combine]
    torch.testing.assert_close(position(PLACES, GRID), expected)
    torch.testing.assert_close(position(PLACES.expand(2, 3, 2), GRID.expand(2, 3, 2)), expected.expand(2, 3, 8))


def test_waves_fall_from_one_to_the_temperature():
    position = build(kind="sinusoidal", combine="stack")  # two frequencies each: 1 and 100 ** -1/2
    angles = [[at, at / 10] for at in (1.0, 3.0)]
    by_hand = [f(angle) for pair in angles for f in (math.sin, math.cos) for angle in pair]
    torch.testing.assert_close(position(PLACES, GRID)[1], torch.tensor(by_hand))


def test_fourier_maps_both_coordinates():
    position = build(kind="fourier", coordinates="fractional")
    assert position.frequencies.shape == (2, 4)
    angles = torch.tensor([0.5, 0.5]) @ position.frequencies
    torch.testing.assert_close(position(PLACES, GRID)[1], torch.cat([angles.sin(), angles.cos()]))


def test_starting_values():
    tables, fourier = build(dim=256, max_grid=64), build(dim=2048, kind="fourier")
    assert tables.rows.std().item() == pytest.approx(0.02, rel=0.05)
    assert tables.columns.std().item() == pytest.approx(0.02, rel=0.05)
    assert fourier.frequencies.std().item() == pytest.approx(3.0, rel=0.05)


def test_a_table_of_another_length_is_read_between_its_entries():
    ramp = torch.arange(3.0)[:, None].repeat(1, 2)
    torch.testing.assert_close(build().resize(ramp), torch.arange(0, 2.5, 0.5)[:, None].repeat(1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combine": "mean"}, "position.combine=mean is unknown; positions are add, stack or product; use add"),
        ({"max_grid": 1}, "max_grid=1 .* at least 2 entries"),
        ({"dim": 6}, "model.dim=6: .* divisible by 4"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)
    assert build(max_grid=2).rows.shape == (2, 8)
