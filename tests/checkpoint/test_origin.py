"""Renaming: rules in turn, pairs that go both ways, and projections that become one."""

import pytest
import torch

from vitexp.checkpoint.origin import Origin, pair, rename, stack_qkv

ONE, TWO, THREE = (torch.full((2, 2), float(value)) for value in (1, 2, 3))


def test_rules_apply_in_turn() -> None:
    rules = [(r"^a\.", "b."), (r"^b\.(\d)", lambda found: f"c.{int(found[1]) + 1}")]
    assert rename({"a.1.w": ONE, "x.a.1": TWO}, rules) == {"c.2.w": ONE, "x.a.1": TWO}


def test_pairs_are_literal_and_undone_from_the_last_on() -> None:
    pairs = [("^stem.", "^patch_embed."), ("^stages.#.blocks.#.", "^layers.#.#."), (".", "/")]
    ours = {"stem.w": ONE, "stages.1.blocks.12.w": TWO, "stemXw": THREE}
    theirs = {"patch_embed/w": ONE, "layers/1/12/w": TWO, "stemXw": THREE}
    assert pair(ours, pairs) == theirs
    assert pair(theirs, pairs, back=True) == ours


def test_three_projections_become_one() -> None:
    parts = ("query", "key", "value")
    tensors = {f"0.attention.{part}.w": tensor for part, tensor in zip(parts, (ONE, TWO, THREE), strict=True)}
    others = {"0.attention.out.w": ONE, "1.attention.query.w": TWO, "1.attention.value.w": ONE, "query.w": ONE}
    stacked = stack_qkv(tensors | others, parts)
    assert stacked.keys() == {"0.attention.qkv_projection.w", *others}, "a triple with a gap stays"
    assert torch.equal(stacked["0.attention.qkv_projection.w"], torch.cat([ONE, TWO, THREE]))
    inside = {name.replace("attention", "attn"): tensor for name, tensor in tensors.items()}
    assert stack_qkv(inside, parts) == inside
    assert list(stack_qkv(inside, parts, inside="attn")) == ["0.attn.qkv_projection.w"]


@pytest.mark.parametrize(("name", "fits"), [("block.gamma", True), ("gamma", False)])
def test_an_origin_is_told_by_any_name(name: str, fits: bool) -> None:
    origin = Origin(name="theirs", marker=r"\.gamma$", position_method="timm", translate=dict)
    assert origin.fits(["head.weight", name]) == fits
    assert not origin.fits([])
