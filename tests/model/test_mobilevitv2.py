"""MobileViT v2: counts, gradients, what mixes with what, folding, small and odd maps, groups of the optimizer."""

from functools import partial

import pytest
import torch
import yaml
from torch import nn

from tests.tiny_mobile import V2_050, mobilevitv2, trained
from vitexp.attention.softmax import Softmax
from vitexp.config.compose import conf_dir
from vitexp.errors import ConfigError
from vitexp.layer.pixel_sets import split_sets
from vitexp.model.mobilevitv2 import MobileBlockV2
from vitexp.optim.group import parameter_groups


class Gridded(Softmax.__mro__[1]):  # a variant that works on grid cells only
    needs_grid = True


def test_tensors_and_buffers_of_width_one_half():
    with torch.device("meta"):
        model = mobilevitv2(V2_050, num_classes=1000)
    assert len(model.state_dict()) == 269
    assert sum(p.numel() for p in model.parameters()) == 1_370_593
    assert sum(b.numel() for b in model.buffers()) == 7_801


@pytest.mark.parametrize("attention", [None, partial(Softmax, qkv_bias=True, temperature=1.0)])
def test_gradients_reach_every_parameter(attention):
    model = trained(mobilevitv2(**({"attention": attention} if attention else {}))).train()
    logits = model(torch.rand(3, 3, 64, 64))
    assert logits.shape == (3, 5)
    logits.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", [(64, 64), (56, 56), (72, 40), (32, 32), (8, 8)])
def test_features_stand_at_their_strides(size):
    """The block rounds odd sides up to even ones and leaves them; `features` goes back, the logits do not."""
    model = trained(mobilevitv2())
    images = torch.rand(2, 3, *size)
    maps = model.features(images)
    for m, stride in zip(maps, model.strides, strict=True):
        assert m.shape[2:] == (-(-size[0] // stride), -(-size[1] // stride))
        assert m.isfinite().all()
    assert model(images).isfinite().all()


@pytest.mark.parametrize(("size", "after"), [((7, 7), (8, 8)), ((1, 1), (2, 2)), ((6, 5), (6, 6))])
def test_odd_maps_leave_the_block_even(size, after):
    module = trained(mobilevitv2().stages[2][1])
    out = module(torch.randn(2, 16, *size))
    assert out.shape == (2, 16, *after)
    assert out.isfinite().all()


@pytest.mark.parametrize("stem_stride", [8, 4, 2, 1])
def test_first_convolutions_stop_halving_on_small_images(stem_stride):
    model = mobilevitv2(stem_stride=stem_stride, image_size=8 * stem_stride).eval()
    assert model.strides[2] == stem_stride
    assert model.grid == (2, 2)
    assert [m.shape[-1] for m in model.features(torch.rand(1, 3, 8 * stem_stride, 8 * stem_stride))][2:] == [8, 4, 2]


def test_order_of_patches_and_of_sets_does_not_matter():
    layers = trained(mobilevitv2()).stages[3][1].layers
    tokens = split_sets(torch.randn(2, 8, 8, 8), 2)  # (B, P, N, D)
    expected = layers(tokens)
    patches, places = torch.randperm(16), torch.randperm(4)
    torch.testing.assert_close(layers(tokens[:, :, patches]), expected[:, :, patches], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers(tokens[:, places]), expected[:, places], rtol=1e-4, atol=1e-5)


def test_block_has_no_shortcut():
    module = trained(mobilevitv2().stages[2][1])
    assert isinstance(module, MobileBlockV2)
    nn.init.zeros_(module.leave.norm.weight)
    out = module(torch.randn(2, 16, 8, 8))
    torch.testing.assert_close(out, module.leave.norm.bias[:, None, None].expand_as(out))


def test_folded_equals_unfolded():
    model = trained(mobilevitv2())
    images = torch.rand(2, 3, 56, 72)
    expected = model(images)
    model.fuse()
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def test_starting_values():
    """Linear maps start as the 1x1 convolutions that they are in the authors' code."""
    layer = mobilevitv2(V2_050).stages[4][1].layers[0]
    assert float(layer.attention.qkv_projection.weight.detach().std()) == pytest.approx((2 / 257) ** 0.5, rel=0.03)
    assert float(layer.mlp.fc1.weight.detach().std()) == pytest.approx((2 / 256) ** 0.5, rel=0.03)


def test_exactly_the_one_dimensional_weights_do_not_decay():
    model = mobilevitv2()
    groups = parameter_groups(model, lr=1.0, weight_decay=0.05)
    still = {name for group in groups if group["weight_decay"] == 0 for name in group["names"]}
    assert still == {name for name, parameter in model.named_parameters() if parameter.ndim == 1}
    assert 0 < len(still) < len(list(model.parameters()))


@pytest.mark.parametrize("file", sorted((conf_dir() / "model").glob("mobilevitv2_*.yaml")), ids=lambda file: file.stem)
def test_hidden_widths_are_multiples_of_16(file):
    geometry = yaml.safe_load(file.read_text())["model"]
    with torch.device("meta"):
        model = mobilevitv2({"counts": [1, 2], "channels": geometry["channels"], "dims": geometry["blocks"]["dims"]})
    hidden = [module.mlp.fc1.out_features for module in model.modules() if hasattr(module, "mlp")]
    assert len(hidden) == 2 + 4 + 3
    assert not [width for width in hidden if width % 16]


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    explained = torch._dynamo.explain(mobilevitv2().train())(torch.rand(2, 3, 32, 32))
    assert explained.graph_break_count == 0, explained.break_reasons


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem_stride": 16}, "use model.stem_stride=1, 2, 4 or 8"),
        ({"attention": partial(Gridded, qkv_bias=True)}, "use attention=softmax or separable"),
    ],
)
def test_errors_say_what_to_type(options, message):
    with pytest.raises(ConfigError, match=message):
        mobilevitv2(**options)
