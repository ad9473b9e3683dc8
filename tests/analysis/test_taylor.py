"""Taylor importance keeps the fact sheet's identities in fp64, and a sliced model is the gated one."""

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.analysis.subjects import subject
from tests.tiny import randomise, tiny_vit
from vitexp.analysis.gates import derivatives, gated, open_gates, unit_macs
from vitexp.analysis.taylor import Plan, Taylor, slice_model
from vitexp.build import build_model, count_macs
from vitexp.config.compose import compose
from vitexp.errors import ConfigError
from vitexp.model.narrow import Narrow

PARTS = [("attention", "qk"), ("attention", "v"), ("mlp", "hidden")]
CLOSE = {"atol": 1e-15, "rtol": 1e-9}


def model() -> nn.Module:
    return randomise(tiny_vit(depth=2, dim=24, num_heads=3)).double().eval()


def data(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.double), torch.arange(count) % 5


def weight_products(vit: nn.Module) -> None:
    images, labels = data()
    vit.zero_grad()
    F.cross_entropy(vit(images), labels).backward()


def test_slopes_are_weight_times_gradient() -> None:
    """V from its rows and bias = from the columns that read it; Q = K; hidden = the columns of fc2."""
    vit = model()
    slopes = derivatives(vit, open_gates(vit), *data())
    weight_products(vit)
    for index, block in enumerate(vit.blocks):
        stacked, out = block.attention.qkv_projection, block.attention.out
        rows = ((stacked.weight * stacked.weight.grad).sum(1) + stacked.bias * stacked.bias.grad).reshape(3, 3, 8)
        torch.testing.assert_close(rows[0], rows[1], **CLOSE)
        torch.testing.assert_close(slopes[f"blocks.{index}.attention", "qk"], rows[0], **CLOSE)
        torch.testing.assert_close(slopes[f"blocks.{index}.attention", "v"], rows[2], **CLOSE)
        columns = (out.weight * out.weight.grad).sum(0).reshape(3, 8)
        torch.testing.assert_close(columns, rows[2], **CLOSE)
        hidden = (block.mlp.fc2.weight * block.mlp.fc2.weight.grad).sum(0)
        torch.testing.assert_close(slopes[f"blocks.{index}.mlp", "hidden"], hidden, **CLOSE)


def macs(vit: nn.Module) -> int:
    return count_macs(copy.deepcopy(vit).float(), (3, 16, 16))


def measured(vit: nn.Module, budget: float = 0.5, rounds: int = 2) -> list[Plan]:
    looked = replace(subject(vit, count=8), images=data(8)[0], count_macs=macs)
    return Taylor(budget=budget, rounds=rounds, batch=4, normalise=True).measure(looked)


def test_sliced_is_gated_and_costs_what_was_said() -> None:
    vit, (images, _) = model(), data()
    whole = macs(vit)
    plan = measured(vit)[-1]
    with torch.no_grad(), gated(vit, plan.gates):
        expected = vit(images)
    layers = slice_model(vit, plan.gates)
    torch.testing.assert_close(vit(images), expected, atol=1e-12, rtol=1e-12)
    assert macs(vit) / whole == pytest.approx(plan.left, abs=1e-12)
    assert plan.left <= 0.5 < plan.left + 0.05
    assert [layer["name"][9:] for layer in layers] == ["attention", "mlp"] * 2
    rebuilt = tiny_vit(depth=2, dim=24, num_heads=3).double().eval()
    Narrow(layers=layers)(rebuilt)
    rebuilt.load_state_dict(vit.state_dict())
    torch.testing.assert_close(rebuilt(images), vit(images), atol=0, rtol=0)


def test_context_passes_a_narrow_attention() -> None:
    vit = model()
    slice_model(vit, measured(vit)[-1].gates)
    attention, x = vit.blocks[0].attention, torch.randn(2, 5, 24, dtype=torch.double)
    joined = attention(x)[:, :3]
    torch.testing.assert_close(attention(x[:, :3], context=x[:, 3:]), joined)
    q, k, v = attention.qkv(x)
    torch.testing.assert_close(attention.attend(q, k, v), attention.weights(q, k) @ v)


def test_channels_that_do_nothing_go_first_and_are_not_missed() -> None:
    vit, (images, _) = model(), data()
    mlp = vit.blocks[1].mlp
    with torch.no_grad():
        mlp.fc2.weight[:, ::2] = 0
        before = vit(images)
    plan = measured(vit, budget=0.97, rounds=1)[0]
    closed = (plan.gates["blocks.1.mlp", "hidden"] == 0).nonzero().flatten()
    assert len(closed)
    assert (closed % 2 == 0).all()
    assert plan.kept(("blocks.0.mlp", "hidden")) == (96, 96)
    slice_model(vit, plan.gates)
    torch.testing.assert_close(vit(images), before, atol=1e-12, rtol=1e-12)


def test_rounds_only_tighten() -> None:
    plans = measured(model(), budget=0.4, rounds=3)
    assert [plan.asked for plan in plans] == pytest.approx([0.8, 0.6, 0.4])
    for earlier, later in pairwise(plans):
        for unit, gate in later.gates.items():
            assert (gate <= earlier.gates[unit]).all()
            assert later.kept(unit)[0] >= 1
            assert len({int(head.sum()) for head in torch.atleast_2d(gate)}) == 1, "heads keep equally many"


def test_costs_of_a_channel() -> None:
    """A unit of q and k is one channel a head: 2 N D H to project, N^2 H to score; a hidden one 2 N D."""
    costs = unit_macs(model(), data()[0][:1])
    tokens, dim, heads = 17, 24, 3
    assert costs["blocks.0.attention", "qk"] == heads * (2 * tokens * dim + tokens**2)
    assert costs["blocks.0.attention", "v"] == heads * (2 * tokens * dim + tokens**2)
    assert costs["blocks.0.mlp", "hidden"] == 2 * tokens * dim


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(ConfigError, match="every layer is at one channel; use a larger"):
        measured(model(), budget=0.01)
    with pytest.raises(ConfigError, match="prunes attentions with a map and MLPs"):
        measured(nn.Conv2d(3, 3, 1))
    with pytest.raises(ConfigError, match=r"blocks\.9\.mlp, which this ViT has not"):
        Narrow(layers=[{"name": "blocks.9.mlp", "hidden": 3}])(tiny_vit())


def test_the_picture(tmp_path: Path) -> None:
    analysis = Taylor(budget=0.5, rounds=2, batch=4, normalise=True)
    plans = measured(model())
    analysis.draw({"trained": plans}, tmp_path / "taylor.png", "tiny")
    assert (tmp_path / "taylor.png").stat().st_size > 10_000
    assert len(analysis.rows(plans)) == 2 * 6
    assert analysis.summary(plans)["macs_left"] == plans[-1].left
    rows = analysis.rows(plans)
    layers = [(f"blocks.{b}.{part}", kind) for b in (0, 1) for part, kind in PARTS]
    assert [(row["layer"], row["kind"]) for row in rows] == layers * 2
    assert [row["kept"] for row in rows[6:]] == [plans[1].kept(unit)[0] for unit in layers]
    assert [row["original"] for row in rows] == [8, 8, 96] * 4
    assert {row["budget"] for row in rows} == {0.75, 0.5}


@pytest.mark.parametrize("normalise", [False, True])
def test_importance_is_the_mean_of_squared_slopes(normalise: bool) -> None:
    vit, (images, labels) = model(), data(8)
    gates = open_gates(vit)
    looked = replace(subject(vit, count=8), images=images, labels=labels)
    found = Taylor(budget=0.5, rounds=1, batch=4, normalise=normalise)._importance(looked, gates)
    halves = [derivatives(vit, gates, images[part], labels[part]) for part in (slice(0, 4), slice(4, 8))]
    for unit, score in found.items():
        mean = (halves[0][unit].square() + halves[1][unit].square()) / 2
        torch.testing.assert_close(score, mean / mean.norm() if normalise else mean)


@pytest.mark.parametrize(
    "words",
    [
        ["model=swinv2", "model.dim=24", "model.depths=[2,2]", "model.num_heads=[2,2]", "size=16"],
        ["model=deepvit_16b", "model.dim=24", "model.depth=2", "model.num_heads=2", "size=16"],
    ],
    ids=["cosine in windows", "reattention"],
)
def test_other_attentions_are_sliced_as_they_are_gated(words: list[str]) -> None:
    vit, (images, _) = randomise(build_model(compose([*words, "data=fake"]))).double().eval(), data()
    whole, plan = macs(vit), measured(vit, budget=0.7)[-1]
    with torch.no_grad(), gated(vit, plan.gates):
        expected = vit(images)
    assert (expected - vit(images)).abs().max() > 1e-9, "something was closed"
    slice_model(vit, plan.gates)
    torch.testing.assert_close(vit(images), expected, atol=1e-10, rtol=1e-10)
    assert macs(vit) / whole == pytest.approx(plan.left, abs=1e-12)
