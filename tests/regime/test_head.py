"""What trains under each regime, exactly, and what must not move."""

import copy

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests.tiny import conv_stem, tiny_vit
from tests.tiny_efficientvit import tiny_efficientvit
from vitexp.build import make
from vitexp.checkpoint.adapter import trained_names, without_base
from vitexp.config.compose import conf_dir
from vitexp.errors import ConfigError
from vitexp.regime.head import head

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def regime(name):
    return make(OmegaConf.load(conf_dir() / "regime" / f"{name}.yaml"))


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def step(model, size=16):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1)
    model.train()
    nn.functional.cross_entropy(model(torch.randn(4, 3, size, size)), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()


def build():
    return tiny_vit(stem=conv_stem(4), dropout=0.2, drop_path_rate=0.2)


def test_full_trains_everything():
    model = regime("full")(build(), num_classes=5)
    assert trainable(model) == set(dict(model.named_parameters()))
    assert all(module.training for module in model.train().modules())


def test_head_trains_the_head_and_nothing_else():
    model = regime("head")(build(), num_classes=5)
    assert trainable(model) == {"head.weight", "head.bias"}
    before = copy.deepcopy(model.state_dict())
    step(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("head.")), name
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("head."))


def test_features_are_kept_where_that_is_asked_for():
    images = torch.randn(2, 3, 16, 16)
    plain, kept = head(build(), num_classes=5).eval(), head(build(), num_classes=5, cache=True).eval()
    assert not hasattr(plain, "embed_frozen")
    assert torch.equal(kept(kept.embed_frozen(images)), kept(images))


def test_frozen_part_stays_in_eval_mode():
    model = regime("head")(build(), num_classes=5).train()
    assert model.training
    assert model.head.training
    frozen = [m for name, child in model.named_children() if name != "head" for m in child.modules()]
    assert frozen
    assert not any(module.training for module in frozen)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), model.eval()(images))


def test_freezing_survives_a_copy_and_keeps_names():
    plain = build()
    model = copy.deepcopy(regime("head")(copy.deepcopy(plain), num_classes=5))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not model.train().norm.training
    model.stem.double()
    assert next(model.stem.parameters()).dtype == torch.double


@pytest.mark.parametrize("name", ["full", "head"])
def test_other_classes_get_a_zero_head(name):
    model = build()
    head = model.head
    assert regime(name)(model, num_classes=5).head is head
    model = regime(name)(model, num_classes=9)
    assert model.num_classes == 9
    assert model.head.weight.shape == (9, 16)
    assert model.head.weight.abs().max() == model.head.bias.abs().max() == 0
    assert {"head.weight", "head.bias"} <= trainable(model)


@pytest.mark.parametrize("name", ["head", "bias", "lora"])
def test_model_without_a_head(name):
    with pytest.raises(ConfigError, match=r"Identity ends in no linear layer for 3 classes.*SupportsNewHead"):
        regime(name)(nn.Identity(), num_classes=3)


def test_without_a_word_of_the_model_its_last_linear_layer_is_the_head():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 3)))
    assert trainable(regime("head")(model, num_classes=3)) == {"2.1.weight", "2.1.bias"}
    with pytest.raises(ConfigError, match=r"which layer that is; use regime.cache=false"):
        head(model, num_classes=3, cache=True)


@pytest.mark.parametrize("name", ["head", "bias"])
def test_running_statistics_of_the_head_travel_with_it(name):
    """EfficientViT's head begins with a batch norm, which moves in training though no gradient reaches its buffers."""
    base = tiny_efficientvit()
    model = regime(name)(copy.deepcopy(base), num_classes=5)
    before = copy.deepcopy(model.state_dict())
    step(model, size=64)
    moved = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved <= trained_names(model)
    assert trained_names(model) - trainable(model) == {f"head.norm.{key}" for key in STATISTICS} <= moved
    twin = regime(name)(base, num_classes=5)
    twin.load_state_dict(without_base(model.state_dict(), trained_names(model)), strict=False)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(twin.eval()(images), model.eval()(images))
