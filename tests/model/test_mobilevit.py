"""MobileViT: shapes, counts, gradients, what mixes with what, folding, small and odd maps, its errors."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tiny_mobile import XXS, mobilevit, trained
from vitexp.attention.separable import Separable
from vitexp.attention.softmax import Softmax
from vitexp.errors import ConfigError
from vitexp.layer.pixel_sets import split_sets
from vitexp.model.mobilevit import MobileBlock


class Gridded(Softmax.__mro__[1]):  # a variant that works on grid cells only
    needs_grid = True


def test_tensors_and_buffers_of_xxs():
    with torch.device("meta"):
        model = mobilevit(XXS, num_classes=1000)
    assert len(model.state_dict()) == 311
    assert sum(p.numel() for p in model.parameters()) == 1_272_024
    assert sum(b.numel() for b in model.buffers()) == 4_144


@pytest.mark.parametrize("attention", [None, partial(Separable, qkv_bias=True)])
def test_gradients_reach_every_parameter(attention):
    model = trained(mobilevit(**({"attention": attention} if attention else {}))).train()
    logits = model(torch.rand(3, 3, 64, 64))
    assert logits.shape == (3, 5)
    logits.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", [(64, 64), (56, 56), (72, 40), (32, 32), (8, 8)])
def test_features_stand_at_their_strides(size):
    """56: a last map of odd sides; 32 and 8: maps of one pixel."""
    model = trained(mobilevit())
    assert model.strides == (2, 4, 8, 16, 32)
    images = torch.rand(2, 3, *size)
    maps = model.features(images)
    assert [m.shape[1] for m in maps] == [8, 8, 12, 16, 16]
    for m, stride in zip(maps, model.strides, strict=True):
        assert m.shape[2:] == (-(-size[0] // stride), -(-size[1] // stride))
        assert m.isfinite().all()
    torch.testing.assert_close(model.classify(maps[-1]), model(images))


@pytest.mark.parametrize(
    ("stem_stride", "strides"),
    [(8, (2, 4, 8, 16, 32)), (4, (1, 2, 4, 8, 16)), (2, (1, 1, 2, 4, 8)), (1, (1, 1, 1, 2, 4))],
)
def test_first_convolutions_stop_halving_on_small_images(stem_stride, strides):
    model = mobilevit(stem_stride=stem_stride, image_size=8 * stem_stride).eval()
    assert model.strides == strides
    assert model.grid == (2, 2)
    assert [m.shape[-1] for m in model.features(torch.rand(1, 3, 8 * stem_stride, 8 * stem_stride))][2:] == [8, 4, 2]


def block(size):
    torch.manual_seed(0)
    model = mobilevit()
    found = trained(model.stages[2][1])
    assert isinstance(found, MobileBlock)
    return found, torch.randn(2, 12, *size)


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (1, 1), (6, 5)])
def test_without_attention_and_mlp_the_block_is_a_norm_between_convolutions(size):
    module, x = block(size)
    for layer in module.layers:
        for linear in (layer.attention.out, layer.mlp.fc2):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
    seen = module.enter(module.local(x))
    whole = [-(-side // 2) * 2 for side in size]
    seen = F.interpolate(seen, size=whole, mode="bilinear", align_corners=False)
    seen = module.norm(seen.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    seen = F.interpolate(seen, size=size, mode="bilinear", align_corners=False)
    expected = module.fusion(torch.cat([x, module.leave(seen)], dim=1))
    torch.testing.assert_close(module(x), expected)
    assert expected.isfinite().all()


def test_a_pixel_reaches_its_own_set_only():
    module, _ = block((8, 8))
    tokens = split_sets(torch.randn(1, 8, 8, 8), 2)  # (1, P, N, D)
    changed = tokens.clone()
    changed[0, 2, 5] += torch.randn(8)
    difference = (module.layers(changed) - module.layers(tokens)).abs().amax(-1)[0]  # (P, N)
    assert (difference[2] > 0).all()
    assert difference[[0, 1, 3]].max() == 0


def test_norm_is_over_channels_where_a_set_has_as_many_tokens():
    """ml-cvnets 0.3 normalises over tokens there."""
    module, _ = block((8, 8))
    x = torch.randn(1, 4, 8, 8)  # N = D = 8
    plain = module.norm(x)
    torch.testing.assert_close(plain[:, :, :5], module.norm(x[:, :, :5]))


def test_folded_equals_unfolded():
    model = trained(mobilevit())
    images = torch.rand(2, 3, 56, 72)
    expected = model(images)
    model.fuse()
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def test_a_batch_in_parts_equals_the_whole(monkeypatch):
    monkeypatch.setattr("vitexp.layer.in_parts.PART_BYTES", 1)
    model, images = trained(mobilevit()), torch.rand(5, 3, 64, 64)
    whole = model(images)
    with torch.no_grad():
        torch.testing.assert_close(model(images), whole, rtol=1e-5, atol=1e-6)


def test_dropout_only_in_training():
    model = mobilevit(dropout=0.2, head_dropout=0.1)
    images = torch.rand(2, 3, 32, 32)
    model.train()(images)  # running statistics
    assert torch.equal(model.eval()(images), model(images))
    assert not torch.equal(model.train()(images), model(images))


def test_starting_values():
    model = mobilevit(XXS)
    conv = model.stages[4][1].fusion.conv.weight
    assert float(conv.detach().std()) == pytest.approx((2 / (conv.shape[0] * 9)) ** 0.5, rel=0.03)
    assert float(model.stages[4][1].layers[0].attention.qkv_projection.weight.detach().std()) == pytest.approx(
        0.02, rel=0.03
    )
    assert float(model.stages[0][0].project.norm.weight.detach().min()) == 1


def test_new_head_and_any_number_of_channels():
    model = mobilevit(in_channels=1).eval()
    model.reset_head(7)
    assert torch.equal(model(torch.rand(2, 1, 64, 64)), torch.zeros(2, 7))


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    model = mobilevit(dropout=0.1).train()
    explained = torch._dynamo.explain(model)(torch.rand(2, 3, 32, 32))
    assert explained.graph_break_count == 0, explained.break_reasons


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem_stride": 16}, "model.stem_stride=16 is out of reach.*; use model.stem_stride=1, 2, 4 or 8"),
        ({"stem_stride": 3}, "use model.stem_stride=1, 2, 4 or 8"),
        (
            {"attention": partial(Gridded, qkv_bias=True)},
            "attention=gridded works on .*; use attention=softmax",
        ),
        ({"num_heads": 3}, "num_heads must divide dim"),
    ],
)
def test_errors_say_what_to_type(options, message):
    with pytest.raises(ConfigError, match=message):
        mobilevit(**options)
