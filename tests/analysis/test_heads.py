"""Likeness of heads: 1 for copies, blind to their order, and by hand on made maps (fact sheet, E11)."""

from pathlib import Path

import pytest
import torch

from tests.analysis.subjects import subject
from tests.tiny import randomise, tiny_vit
from vitexp.analysis.heads import HeadSimilarity, nearest_fellow
from vitexp.errors import ConfigError
from vitexp.report import plot_depth


def test_copies_are_one_and_order_does_not_matter() -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 4, 6, 6).softmax(-1)
    maps[:, 3] = 2 * maps[:, 1]
    values = nearest_fellow(maps)
    torch.testing.assert_close(values[:, [1, 3]], torch.ones(2, 2))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(nearest_fellow(maps[:, order]), values[:, order])


def test_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]]])
    torch.testing.assert_close(nearest_fellow(maps), torch.full((1, 3), 0.5**0.5))


def test_a_model_with_repeated_heads() -> None:
    model = randomise(tiny_vit(depth=2, num_heads=2))
    attention = model.blocks[1].attention
    with torch.no_grad():
        for rows in (slice(0, 16), slice(16, 32)):  # queries, then keys: the second head repeats the first
            for tensor in (attention.qkv_projection.weight[rows], attention.qkv_projection.bias[rows]):
                tensor[8:] = tensor[:8]
    analysis = HeadSimilarity()
    values = analysis.summary(analysis.measure(subject(model)))
    assert values["softmax/last"] == pytest.approx(1.0, abs=1e-5)
    assert values["softmax/first"] < 0.999999


@pytest.mark.parametrize("options", [{"num_heads": 1}, {"num_heads": 2, "image_size": 4, "pool": "mean"}])
def test_single_heads_and_single_tokens_are_refused(options: dict) -> None:
    model = tiny_vit(**options)
    with pytest.raises(ConfigError, match=r"needs two or more; use model\.num_heads=2"):
        HeadSimilarity().measure(subject(model, size=options.get("image_size", 16)))


def test_rows_and_picture_have_every_head(monkeypatch, tmp_path: Path) -> None:
    drawn: list = []
    monkeypatch.setattr(plot_depth, "panels", lambda panels, out, **words: drawn.extend([*panels, words]))
    analysis, measured = HeadSimilarity(), {"softmax": {0: torch.tensor([0.25, 0.5]), 2: torch.tensor([1.0, 0.0])}}
    third = {"softmax": measured["softmax"] | {3: torch.tensor([0.75, 1.0])}}
    assert analysis.summary(third)["softmax/last"] == 0.875
    assert analysis.rows(measured) == [
        {"kind": "softmax", "block": 0, "head": 0, "cosine": 0.25},
        {"kind": "softmax", "block": 0, "head": 1, "cosine": 0.5},
        {"kind": "softmax", "block": 2, "head": 0, "cosine": 1.0},
        {"kind": "softmax", "block": 2, "head": 1, "cosine": 0.0},
    ]
    assert analysis.summary(measured) == {"softmax/mean": 0.4375, "softmax/first": 0.375, "softmax/last": 0.5}
    analysis.draw({"trained": measured}, tmp_path / "heads.png", "tiny")
    panel, words = drawn
    assert panel.curves == {"trained, softmax map": [0.375, 0.5]}
    assert panel.dots == {"trained, softmax map": [[0.25, 0.5], [1.0, 0.0]]}
    assert words == {"headline": "Similarity of heads by depth", "title": "tiny"}
