"""What decays and what learns slower, on a toy with one of everything."""

import math

import pytest
import torch
from torch import nn

from vitexp.optim.group import backbone_groups, layer_of, parameter_groups


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.stem = nn.Conv2d(3, 4, 2)
        self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(3)])
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


def test_only_linear_and_convolution_weights_decay() -> None:
    groups = parameter_groups(Toy(), lr=1.0, weight_decay=0.1)
    decaying = {name for group in groups if group["weight_decay"] for name in group["names"]}
    assert decaying == {"stem.weight", "blocks.0.1.weight", "blocks.1.1.weight", "blocks.2.1.weight", "head.weight"}


def test_each_parameter_is_in_one_group() -> None:
    model = Toy()
    ids = [
        id(p) for group in parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5) for p in group["params"]
    ]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_layer_decay_halves_from_the_head_to_the_stem() -> None:
    rates = {
        name: group["lr"]
        for group in parameter_groups(Toy(), lr=1.0, weight_decay=0.0, layer_decay=0.5)
        for name in group["names"]
    }
    assert rates["head.weight"] == rates["norm.weight"] == 1.0
    assert rates["blocks.2.1.weight"] == 0.5
    assert rates["blocks.0.1.weight"] == 0.125
    assert rates["stem.weight"] == rates["class_token"] == 0.0625


def test_frozen_parameters_stay_out() -> None:
    model = Toy()
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    assert {n for g in parameter_groups(model, lr=1.0, weight_decay=0.1) for n in g["names"]} == {
        "head.weight",
        "head.bias",
    }
    model.head.requires_grad_(False)
    for frozen in (model, nn.Identity()):
        with pytest.raises(ValueError, match="no parameter is trainable"):
            parameter_groups(frozen, lr=1.0, weight_decay=0.1)


def test_layer_of_reads_nested_names() -> None:
    assert layer_of("base.blocks.7.mlp.weight", 13) == 8
    assert layer_of("norm1.weight", 13) == 0


def by_name(groups: list[dict]) -> dict[str, tuple[float, float]]:
    """Each parameter's rate and decay; each stands beside its own name."""
    assert all(len(group["names"]) == len(group["params"]) for group in groups)
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}


def test_the_backbone_has_its_own_rate_and_what_is_frozen_none() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "backbone_like": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model["backbone"].bias.requires_grad_(False)
    model["head"].weight.requires_grad_(False)
    groups = backbone_groups(model, lr=1.0, weight_decay=0.1, backbone_rate=0.25)
    slow, fast = (0.25, 0.1), (1.0, 0.1)
    named = {"backbone.weight": slow, "backbone_like.weight": fast, "backbone_like.bias": fast, "head.bias": fast}
    assert by_name(groups) == named
    assert groups[0]["params"] == [model["backbone"].weight], "the backbone is the first group"
    model["backbone"].requires_grad_(False)
    (only,) = backbone_groups(model, lr=1.0, weight_decay=0.1, backbone_rate=0.25)
    assert only["lr"] == 1.0
    with pytest.raises(ValueError, match="no parameter is trainable"):
        backbone_groups(model.requires_grad_(False), lr=1.0, weight_decay=0.1, backbone_rate=0.25)


def test_a_regime_may_say_the_rate_and_the_decay_of_a_parameter() -> None:
    model = Toy()
    rates = {"stem.weight": (3.0, 0.5), "class_token": (2.0, None), "blocks.0.1.weight": (4.0, None)}
    vars(model).update(rates=rates, fingerprint="", plain_names=frozenset(), earlier=())
    named = by_name(parameter_groups(model, lr=0.5, weight_decay=0.1, layer_decay=0.5))
    assert named["stem.weight"] == (1.5, 0.5)
    assert named["class_token"] == (1.0, 0.0)
    assert named["blocks.0.1.weight"] == (2.0, 0.1)
    assert named["stem.bias"] == (0.5 * 0.0625, 0.0)


def test_weights_below_an_undecayed_module_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    model[1].undecayed = True
    decays = {name: decay for name, (_, decay) in by_name(parameter_groups(model, lr=1.0, weight_decay=0.1)).items()}
    assert {name for name, decay in decays.items() if decay} == {"0.weight", "2.weight"}
    assert by_name(parameter_groups(nn.Linear(2, 2), lr=1.0, weight_decay=0.1))["weight"] == (1.0, 0.1)


def test_blocks_of_a_pyramid_count_through_its_stages() -> None:
    """Stem 0; a stage of two blocks 1, 2; one without blocks 3; one of three blocks 4, 5, 6; head 7."""

    def stage(blocks: int) -> nn.Module:
        layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(blocks))
        return nn.ModuleDict({"before": nn.Linear(1, 1), "blocks": layers})

    model = nn.ModuleDict(
        {
            "stem": nn.Linear(1, 1),
            "stages": nn.ModuleList([stage(2), nn.Linear(1, 1), stage(3)]),
            "attention_pool": nn.Linear(1, 1),
            "head": nn.Linear(1, 1),
        }
    )
    named = by_name(parameter_groups(model, lr=1.0, weight_decay=0.0, layer_decay=0.5))
    depths = {name.removesuffix(".weight"): -math.log2(rate) for name, (rate, _) in named.items() if "weight" in name}
    assert depths == {
        "stem": 7, "stages.0.before": 7, "stages.0.blocks.0": 6, "stages.0.blocks.1": 5, "stages.1": 4,
        "stages.2.before": 4, "stages.2.blocks.0": 3, "stages.2.blocks.1": 2, "stages.2.blocks.2": 1,
        "attention_pool": 0, "head": 0,
    }  # fmt: skip


def test_layers_are_counted_without_the_top() -> None:
    alone = nn.ModuleDict({"head": nn.Linear(1, 1)})
    groups = parameter_groups(alone, lr=1.0, weight_decay=0.0, layer_decay=0.5)
    assert set(by_name(groups).values()) == {(1.0, 0.0)}
    assert layer_of("stages.1.blocks.0.weight", 9, {0: 2, 1: 3}) == 3
