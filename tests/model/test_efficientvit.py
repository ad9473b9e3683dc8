"""EfficientViT: sizes, starting values, windows, folding, other attentions in its windows, and its errors."""

import copy
from functools import cache, partial

import pytest
import torch
from torch import nn

from tests.tiny_efficientvit import tiny_efficientvit, trained
from vitexp.attention.cascaded import Cascaded
from vitexp.attention.softmax import Softmax
from vitexp.build import make
from vitexp.config.compose import compose
from vitexp.errors import ConfigError
from vitexp.model.efficientvit import Sandwich
from vitexp.optim.group import parameter_groups

# The fact sheet's: with 100 classes, and with 1,000 after folding.
SIZES = {
    "m0": (2_175_736, 2_334_916),
    "m1": (2_806_860, 2_964_256),
    "m2": (3_985_054, 4_168_338),
    "m3": (6_611_822, 6_875_890),
    "m4": (8_457_728, 8_776_340),
    "m5": (12_127_272, 12_436_260),
}
VARIANTS = [
    {},
    {"attention": partial(Softmax, qkv_bias=True, temperature=1.0)},
    {"image_size": (40, 64), "stem_stride": 4, "kernels": [3]},
]


@cache
def composed(*overrides):
    return compose(["data.channels=3", *overrides])


def build(size, *overrides, image_size=224, classes=1000, device="meta"):
    cfg = composed(f"model=efficientvit_{size}", *overrides).copy()
    cfg.data.image_size, cfg.data.num_classes = image_size, classes
    with torch.device(device):
        return make(cfg.model)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


@pytest.mark.parametrize("size", SIZES)
def test_counts_for_100_classes_and_folded(size):
    model = build(size)
    folded, small = SIZES[size][1], SIZES[size][0]
    model.reset_head(100)
    assert count(model) == small
    model.reset_head(1000)
    model.fuse()
    assert count(model) == folded
    assert not norms(model)


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_reach_every_parameter(options):
    model = trained(tiny_efficientvit(**options)).train()
    logits = model(torch.randn(4, 3, 64, 64))
    assert logits.shape == (4, 5)
    logits.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("image_size", "maps", "strides"),
    [
        (8, (8, 4, 2), (1, 2, 4)),
        (32, (8, 4, 2), (4, 8, 16)),
        (224, (14, 7, 4), (16, 32, 64)),
        (256, (16, 8, 4), (16, 32, 64)),
        (384, (24, 12, 6), (16, 32, 64)),
        (512, (32, 16, 8), (16, 32, 64)),
    ],
)
def test_maps_and_windows(image_size, maps, strides):
    model = build("m0", image_size=image_size)
    found = model.features(torch.empty(1, 3, image_size, image_size, device="meta"))
    assert [tuple(m.shape[1:]) for m in found] == [
        (dim, side, side) for dim, side in zip((64, 128, 192), maps, strict=True)
    ]
    assert model.grid == (maps[-1], maps[-1])
    assert model.strides == strides
    assert [stage.window for stage in model.stages] == [(min(7, side),) * 2 for side in maps]


def test_takes_images_of_any_size_once_built():
    model = trained(tiny_efficientvit())
    images = torch.randn(1, 3, 50, 92)
    assert [tuple(m.shape[2:]) for m in model.features(images)] == [(7, 12), (4, 6), (2, 3)]
    assert model(images).shape == (1, 5)


def test_logits_come_from_the_last_map():
    model = trained(tiny_efficientvit())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images), model.head(model.features(images)[-1].mean((2, 3))))


def test_new_blocks_are_the_identity():
    model = tiny_efficientvit().train()
    for stage in model.stages:
        x = torch.randn(4, stage.blocks[0].attention.out.conv.out_channels, 8, 8)
        assert torch.equal(stage.blocks(x), x)


def test_what_starts_at_zero():
    """The last norm of each residual branch in a block, and of each MLP; not the local ones around a downsample."""
    zero = {n for n, m in tiny_efficientvit().named_modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.any()}
    branches = ("before.local", "before.reduce", "attention.out", "after.local", "after.reduce")
    expected = {f"stages.{s}.blocks.{b}.{n}.norm" for s, b in [(0, 0), (1, 0), (2, 0), (2, 1)] for n in branches}
    expected |= {f"stages.{s}.downsample.{side}.reduce.norm" for s in (1, 2) for side in ("before", "after")}
    assert zero == expected


@pytest.mark.parametrize("options", VARIANTS[:2])
def test_nothing_crosses_a_window(options):
    block = trained(tiny_efficientvit(**options)).stages[0].blocks[0]
    x = torch.randn(2, 16, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(block.attend(x)[0, :, :5, :5].square().sum(), x)
    assert (gradient[0, :, :5, :5] != 0).all()
    assert gradient[0, :, 5:].abs().sum() == gradient[0, :, :, 5:].abs().sum() == gradient[1].abs().sum() == 0


def test_windows_are_cut_and_put_back_in_place():
    """Each window, filled up with zeros, as an image of its own."""
    block = trained(tiny_efficientvit()).stages[0].blocks[0]
    x = torch.randn(2, 16, 8, 8)
    out = block.attend(x)
    for top, left in [(0, 0), (0, 5), (5, 0), (5, 5)]:
        part = x[:, :, top : top + 5, left : left + 5]
        window = x.new_zeros(2, 16, 5, 5)
        window[:, :, : part.shape[2], : part.shape[3]] = part
        alone = block.attend(window)[:, :, : part.shape[2], : part.shape[3]]
        torch.testing.assert_close(out[:, :, top : top + 5, left : left + 5], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", VARIANTS)
def test_folded_equals_unfolded(options):
    model = trained(tiny_efficientvit(**options))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        model.fuse()
        out = model.to(memory_format=torch.channels_last)(images)
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not norms(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_folded_model_traces():
    model, images = trained(tiny_efficientvit()), torch.randn(2, 3, 64, 64)
    model.fuse()
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.randn(2, 3, 64, 64))
        torch.testing.assert_close(traced(images), model(images))


@pytest.mark.slow
def test_folded_model_exports():
    model, images = trained(tiny_efficientvit()), torch.randn(2, 3, 64, 64)
    model.fuse()
    with torch.no_grad():
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), model(images))


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    explained = torch._dynamo.explain(tiny_efficientvit().train())(torch.randn(2, 3, 64, 64))
    assert explained.graph_break_count == 0, explained.break_reasons


def test_biases_are_not_cached_in_evaluation():
    model, images = trained(tiny_efficientvit()), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
        for name, parameter in model.named_parameters():
            if name.endswith("bias_table"):
                parameter.normal_()
        assert (model(images) - before).abs().max() > 1e-4


def test_biases_and_norms_do_not_decay():
    groups = parameter_groups(tiny_efficientvit(), lr=1.0, weight_decay=0.1)
    decaying = {name for group in groups if group["weight_decay"] for name in group["names"]}
    assert all(name.endswith("weight") and ".norm." not in name for name in decaying)
    assert "stages.0.blocks.0.attention.qkv.0.conv.weight" in decaying


def test_biases_of_another_window_are_resized():
    model = tiny_efficientvit()
    name = "stages.2.blocks.0.attention.bias_table"
    table = torch.arange(32.0).view(2, 16)
    resized, how = model.adapt(name, table)
    assert resized.shape == (2, 4)
    assert how == "attention biases resized from 4x4 to 2x2 (bicubic)"
    expected = nn.functional.interpolate(table.view(1, 2, 4, 4), size=(2, 2), mode="bicubic")
    torch.testing.assert_close(resized, expected.view(2, 4))
    assert model.adapt(name, torch.zeros(3, 16)) is None
    assert model.adapt(name, torch.zeros(2, 15)) is None
    assert model.adapt("head.linear.weight", torch.zeros(2, 4)) is None


def test_a_new_head_keeps_its_norm():
    model = trained(tiny_efficientvit())
    norm = copy.deepcopy(model.head.norm.state_dict())
    model.reset_head(3)
    assert model.num_classes == 3
    assert torch.equal(model(torch.randn(2, 3, 64, 64)), torch.zeros(2, 3))
    assert all(torch.equal(norm[name], value) for name, value in model.head.norm.state_dict().items())


def test_another_attention_replaces_the_native_one_whole():
    model = build("m2", "attention=softmax", image_size=32, classes=10, device="cpu")
    assert all(isinstance(m.attention, Softmax) for m in model.modules() if isinstance(m, Sandwich))
    assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_kernels_of_each_head_come_from_the_model():
    model = build("m1", image_size=32)
    found = [[brick.conv.kernel_size[0] for brick in stage.blocks[0].attention.query] for stage in model.stages]
    assert found == [[7, 5], [7, 5, 3], [7, 5, 3]]
    model = build("m1", "model.kernels=[3]", image_size=32)
    assert {b.conv.kernel_size[0] for stage in model.stages for b in stage.blocks[0].attention.query} == {3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem_stride": 3}, r"one of 1, 2, 4, 8, 16; use model\.stem_stride=2"),
        ({"stem_stride": 32}, r"use model\.stem_stride=16"),
        ({"depths": [1, 2]}, "each needs one number above 0 for each stage"),
        ({"depths": [1, 0, 2]}, "each needs one number above 0 for each stage"),
        ({"num_heads": [2, 5, 2]}, "num_heads must divide dim"),
        ({"kernels": [4, 3, 3]}, "each must be odd"),
    ],
)
def test_errors_say_what_to_type(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny_efficientvit(**options)


def test_kernels_given_twice():
    with pytest.raises(ConfigError, match=r"disagree; .* use model\.kernels alone"):
        tiny_efficientvit(attention=partial(Cascaded, kernels=[3], key_dim=16, cascade=True))
