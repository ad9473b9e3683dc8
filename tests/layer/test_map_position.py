"""Sine positions: the authors' values; padding; the learned alternative's end."""

import pytest
import torch

from vitexp.errors import ConfigError
from vitexp.layer.map_position import LearnedPosition, SinePosition, map_position


def test_golden_values() -> None:
    """Measured with the authors' code on a 3 x 4 map."""
    position = SinePosition(256)(torch.zeros(1, 3, 4, dtype=torch.bool))
    assert position.shape == (1, 256, 3, 4)
    corner = position[0, [0, 1, 2, 128], 0, 0].tolist()
    assert corner == pytest.approx([0.866026, -0.499999, 0.970651, 1.0], abs=2e-6)
    assert float(position.sum()) == pytest.approx(1488.7160, abs=1e-3)


def test_only_real_cells_count() -> None:
    padding = torch.ones(1, 3, 4, dtype=torch.bool)
    padding[:, :2, :3] = False
    position = SinePosition(256)(padding)
    assert position[0, 0, 0, :].abs().max() < 1e-5
    assert position[0, 128, 0, :3].tolist() == pytest.approx([0.866026, -0.866025, 0.0], abs=1e-5)
    alone = SinePosition(256)(torch.zeros(1, 2, 3, dtype=torch.bool))
    torch.testing.assert_close(position[:, :, :2, :3], alone)


def test_learned_positions_have_an_end() -> None:
    learned = LearnedPosition(8)
    position = learned(torch.zeros(2, 3, 4, dtype=torch.bool))
    assert position.shape == (2, 8, 3, 4)
    torch.testing.assert_close(position[1, :, 2, 3], torch.cat([learned.columns[3], learned.rows[2]]))
    with pytest.raises(ConfigError, match=r"model\.position=sine"):
        learned(torch.zeros(1, 51, 4, dtype=torch.bool))


def test_unknown_kinds_and_widths() -> None:
    with pytest.raises(ConfigError, match="sine and learned"):
        map_position("cosine", 8)
    with pytest.raises(ConfigError, match="multiple of 4"):
        map_position("sine", 10)
