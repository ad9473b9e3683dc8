"""Rollout is its recurrence, and what has no rollout says so."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.analysis.subjects import subject
from tests.tiny import tiny_vit
from vitexp.analysis.rollout import Rollout, half_share, read, require_grid, roll_out
from vitexp.errors import ConfigError
from vitexp.report import plot_overlays


def test_recurrence_by_hand() -> None:
    first, second = torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    a, b = (first + torch.eye(2)) / 2, (second + torch.eye(2)) / 2
    torch.testing.assert_close(roll_out([first, second]), b @ a)
    torch.testing.assert_close(roll_out([torch.eye(3)] * 4), torch.eye(3))
    torch.testing.assert_close(roll_out([first]), a)
    uneven = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(roll_out([uneven]), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))


def test_rows_stay_distributions() -> None:
    maps = [torch.rand(6, 6).softmax(-1) for _ in range(5)]
    torch.testing.assert_close(roll_out(maps).sum(-1), torch.ones(6))


def test_half_share() -> None:
    assert half_share(torch.ones(8)).item() == 0.5
    assert half_share(torch.tensor([0.0, 9.0, 1.0, 0.0])).item() == 0.25


def test_what_is_read_is_the_class_tokens_row_or_the_mean() -> None:
    weights = torch.rand(2, 7, 7)
    model = SimpleNamespace(grid=(2, 3), num_prefix=1, embed=len, pool=len)
    assert torch.equal(read(model, weights), weights[:, 0, 1:].view(2, 2, 3))
    weights = weights[:, 1:, 1:]
    torch.testing.assert_close(read(SimpleNamespace(grid=(2, 3)), weights), weights.mean(1).view(2, 2, 3))
    require_grid(model, torch.rand(1, 2, 7, 7))
    with pytest.raises(ConfigError, match="whole image"):
        require_grid(model, torch.rand(1, 2, 10, 10))


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_a_model_is_measured_and_drawn(pool: str, tmp_path: Path) -> None:
    looked = subject(tiny_vit(pool=pool), count=2)
    analysis = Rollout(block=0)
    measured = analysis.measure(looked)
    assert measured.rollout.shape == (2, 4, 4)
    assert measured.heads.shape == (2, 2, 4, 4)
    if pool == "mean":
        torch.testing.assert_close(measured.rollout.sum((1, 2)), torch.ones(2))
    torch.testing.assert_close(measured.pixels, (0.25 * looked.images + 0.5).clamp(0, 1))
    assert len(analysis.rows(measured)) == 2 * 3 * 16
    analysis.draw({"trained": measured}, tmp_path / "rollout.png", "tiny")
    assert (tmp_path / "rollout.svg").is_file()


def test_the_picture_names_the_block_from_one_on(monkeypatch, tmp_path: Path) -> None:
    drawn: dict = {}
    monkeypatch.setattr(plot_overlays, "overlays", lambda *arrays, **words: drawn.update(words, arrays=arrays))
    analysis = Rollout(block=-1)
    measured = analysis.measure(subject(tiny_vit(depth=3), count=2))
    assert measured.block == 2
    analysis.draw({"trained": measured}, tmp_path / "rollout.png", "tiny")
    assert (drawn["block"], drawn["title"]) == (3, "tiny")
    assert [array.shape for array in drawn["arrays"][:3]] == [(2, 3, 16, 16), (2, 4, 4), (2, 2, 4, 4)]


def test_windows_and_unknown_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"whole image .* use a ViT or DeepViT"):
        require_grid(tiny_vit(), torch.rand(4, 2, 9, 9))
    with pytest.raises(ConfigError, match=r"analysis\.block=7 is no block of this model; it has 2"):
        Rollout(block=7).measure(subject(tiny_vit()))
