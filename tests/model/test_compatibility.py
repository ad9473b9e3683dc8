"""Every attention in every family of models trains, or is refused in one line, as `vitexp list attention` says.

Families and attentions are what conf/ has, so a new file is tested by its being there.
"""

import pytest
import torch
import yaml

from tests.tiny import tiny_vit
from vitexp.attention.base import flags_of
from vitexp.build import build_model, make
from vitexp.config.compose import compose, conf_dir, options
from vitexp.errors import ConfigError
from vitexp.verb.list import FAMILIES, FLAGS, MEAN_POOLING, cell, compatibility, family_of, flags
from vitexp.verb.list import published_attention as published

SIZE = 32
ATTENTIONS = options("attention")


def content(model):
    return yaml.safe_load((conf_dir() / "model" / f"{model}.yaml").read_text())


def merged(model, key):
    """A block of a model's file over those of the files that it builds on."""
    blocks = [
        merged(base, key) for base in content(model).get("defaults", ()) if isinstance(base, str) and base[0] != "_"
    ]
    return {name: value for block in [*blocks, content(model).get(key, {})] for name, value in block.items()}


def brings_task(model):
    """Whether a model's file, or one that it builds on, chooses another task than classification."""
    entries = content(model).get("defaults", ())
    bases = [base for base in entries if isinstance(base, str) and base != "_self_"]
    return any("override /task" in entry for entry in entries if isinstance(entry, dict)) or any(
        map(brings_task, bases)
    )


def smallest_of_each_class():
    """The smallest classifier of each `_target_` that takes an attention; what brings another task is no classifier."""
    found = {}
    for model in options("model"):
        if not brings_task(model) and {"override /attention": None} not in content(model).get("defaults", ()):
            size = (merged(model, "reference").get("parameters") or 0, model)
            target = merged(model, "model")["_target_"]
            found[target] = min(found.get(target, size), size)
    return sorted(model for _, model in found.values())


MODELS = smallest_of_each_class()


def build(model, attention, *overrides):
    fewer = ["model.depth=2"] if isinstance(merged(model, "model").get("depth"), int) else []
    chosen = [f"model={model}", f"attention={attention}", "data.channels=3", f"size={SIZE}"]
    cfg = compose([*chosen, *fewer, *overrides])
    cfg.data.num_classes = 5
    torch.manual_seed(0)
    built, variant = make(cfg.model), make(cfg.model.attention).func
    assert any(isinstance(module, variant) for module in built.modules())
    return built


def trains(model):
    logits = model.train()(torch.randn(2, 3, SIZE, SIZE))
    assert logits.shape == (2, 5)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("model", MODELS)
def test_each_pair_trains_or_is_refused_by_name(model, attention):
    family = family_of(model)
    assert family is not None, f"model={model} belongs to no family of vitexp.verb.list"
    said = cell(family, flags(attention))
    pooled = said == MEAN_POOLING and merged(model, "model").get("pool", "mean") == "mean"
    if said == "yes" or pooled:
        trains(build(model, attention))
        return
    with pytest.raises(ConfigError, match=f"attention={attention}") as caught:
        build(model, attention)
    message = str(caught.value)
    assert "model" in message or family.title in message
    assert "use " in message
    if said == MEAN_POOLING:
        trains(build(model, attention, "model.pool=mean"))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_masked_memory_takes_an_attention_with_a_map(attention):
    (family,) = [family for family in FAMILIES if family.title == "masked memory"]
    cfg = compose(["model=vit_nano", f"attention={attention}", "model.pool=token", "regime=memory_masked"])
    if cell(family, flags(attention)) == "yes":
        assert build_model(cfg).train()(torch.randn(2, 1, 8, 8)).isfinite().all()
        return
    with pytest.raises(ConfigError, match=f"attention={attention}"):
        build_model(cfg)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_flags_read_from_the_source_are_those_of_the_class(attention):
    factory = make(compose([f"attention={attention}"]).model.attention)
    assert flags(attention) == {flag: getattr(flags_of(factory), flag) for flag in FLAGS}


def test_the_table_has_a_row_for_each_attention_and_a_column_for_each_family():
    columns, rows = compatibility()
    assert [row[0] for row in rows] == ATTENTIONS
    assert all(len(row) == len(columns) for row in rows)
    assert {family_of(model).title for model in options("model") if family_of(model)} <= set(columns)
    softmax = dict(zip(columns, next(row for row in rows if row[0] == "softmax"), strict=True))
    assert softmax["ViT, DeepViT"] == "native"
    assert softmax["mask, context"] == "yes"


@pytest.mark.parametrize(
    ("dense", "grid", "expected"),
    [
        (True, False, ["yes"] * 6),
        (False, True, [MEAN_POOLING, "no", "no", "no", "no", "yes"]),
        (False, False, ["yes", "no", "no", "no", "yes", "yes"]),
    ],
    ids=["softmax, cosine, reattention", "cascaded", "separable"],
)
def test_the_rules_are_those_of_the_design(dense, grid, expected):
    found = {"takes_mask": dense, "takes_context": dense, "takes_bias": dense, "needs_grid": grid}
    assert [cell(family, found) for family in FAMILIES] == expected


def test_what_a_model_is_published_with():
    assert (published("vit_b16"), published("deepvit_s"), published("vit_d384_32b")) == (
        "softmax",
        "reattention",
        "softmax",
    )


def test_a_mask_for_an_attention_without_a_map():
    block = tiny_vit().blocks[0]
    block.attention = NoMap()
    x = torch.randn(1, 3, 16)
    block(x)
    with pytest.raises(ConfigError, match=r"attention=nomap was given a mask .*; use attention=softmax, cosine or"):
        block(x, mask=torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ConfigError, match="given a context"):
        block(x, context=x)


class NoMap(torch.nn.Module):
    takes_mask = takes_context = False

    def forward(self, x, *, context=None, mask=None, bias=None):
        return x
