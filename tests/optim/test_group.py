"""What decays and what learns slower, on a toy with one of everything."""

import pytest
import torch
from torch import nn

from vitexp.optim.group import layer_of, parameter_groups


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
    with pytest.raises(ValueError, match="no parameter is trainable"):
        parameter_groups(model, lr=1.0, weight_decay=0.1)


def test_layer_of_reads_nested_names() -> None:
    assert layer_of("base.blocks.7.mlp.weight", 13) == 8
    assert layer_of("norm1.weight", 13) == 0
