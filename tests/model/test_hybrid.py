"""ViT behind a ResNet: published counts, equality with timm, padding, strides of small images, gradients."""

from functools import cache

import pytest
import torch
from torch.nn import functional as F

from tests.hybrid import resnet_stem, timm_hybrid, tiny_hybrid
from tests.tiny import randomise
from vitexp.build import make
from vitexp.checkpoint.load import load_weights
from vitexp.config.compose import compose
from vitexp.errors import ConfigError
from vitexp.layer.resnet_stem import Bottleneck, shrink
from vitexp.layer.std_conv import StdConv, same_padding

AT_384 = {"vit_r26_s32": 36_468_392, "vit_r50_b16": 98_950_952, "vit_r50_l32": 329_092_136}


@cache
def build(name, size, device="meta", classes=1000):
    cfg = compose([f"model={name}", "data.channels=3"])
    cfg.data.image_size, cfg.data.num_classes = size, classes
    with torch.device(device):
        return make(cfg.model).eval()


@pytest.mark.parametrize("name", AT_384)
def test_published_count_at_384(name):
    assert sum(parameter.numel() for parameter in build(name, 384).parameters()) == AT_384[name]


def test_gradients_reach_every_parameter():
    model = randomise(tiny_hybrid()).train()
    model(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_features_are_the_final_tokens_as_a_map():
    model = tiny_hybrid().eval()
    images = torch.randn(2, 3, 32, 32)
    (maps,) = model.features(images)
    assert maps.shape == (2, 16, 4, 4)
    assert model.strides == (8,)
    torch.testing.assert_close(maps[:, :, 1, 2], model.encode(images)[:, 1 + 6])


@pytest.mark.parametrize(
    ("name", "timm_name"),
    [
        ("vit_rti_16", "vit_tiny_r_s16_p8_224"),
        pytest.param("vit_r26_s32", "vit_small_r26_s32_224", marks=pytest.mark.slow),
        pytest.param("vit_r50_b16", "vit_base_r50_s16_224", marks=pytest.mark.slow),
    ],
)
def test_tokens_and_logits_equal_timm(tmp_path, name, timm_name):
    import timm

    torch.manual_seed(0)
    reference = timm.create_model(timm_name, num_classes=1000).eval()
    with torch.no_grad():
        for norm in (parameter for key, parameter in reference.named_parameters() if "norm" in key):
            norm.add_(torch.randn_like(norm) * 0.2)
    torch.save(reference.state_dict(), tmp_path / "timm.pth")
    model, images = build(name, 224, "cpu"), torch.randn(1, 3, 224, 224)
    assert load_weights(model, tmp_path / "timm.pth") == []
    with torch.inference_mode():
        theirs = reference.forward_features(images)
        assert theirs.std() > 0.1
        torch.testing.assert_close(model.encode(images), theirs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=1e-5)


def test_equals_timm_at_another_size(tmp_path):
    reference, model = timm_hybrid(image_size=48), tiny_hybrid(image_size=48).eval()
    torch.save(reference.state_dict(), tmp_path / "timm.pth")
    load_weights(model, tmp_path / "timm.pth")
    images = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=1e-5)


def test_positions_are_resized(tmp_path):
    torch.save(timm_hybrid(image_size=32).state_dict(), tmp_path / "timm.pth")
    lines = load_weights(tiny_hybrid(image_size=48), tmp_path / "timm.pth")
    assert lines == ["position: resized from 4x4 to 6x6 patches (position_method=timm)"]


def test_a_fresh_bottleneck_is_its_shortcut():
    block = Bottleneck(32, 32, stride=2, groups=8, eps=1e-5)
    x = torch.randn(2, 32, 8, 8)
    torch.testing.assert_close(block(x), F.relu(block.shortcut(x)))


def test_weights_are_standardised():
    conv = StdConv(5, 7, 3)
    torch.nn.init.normal_(conv.weight, mean=3.0, std=2.0)
    x = torch.randn(1, 5, 6, 6)
    var, mean = torch.var_mean(conv.weight.double(), dim=(1, 2, 3), correction=0, keepdim=True)
    expected = F.conv2d(x.double(), (conv.weight - mean) / var.sqrt(), padding=1).float()
    torch.testing.assert_close(conv(x), expected, atol=1e-4, rtol=1e-4)
    conv.fuse()
    torch.testing.assert_close(conv(x), expected, atol=1e-4, rtol=1e-4)
    fused = conv.weight.clone()
    conv.fuse()
    assert torch.equal(conv.weight, fused)


@pytest.mark.parametrize(("side", "before", "after"), [(6, 2, 3), (7, 3, 3)])
def test_padding_is_tensorflows(side, before, after):
    """7x7 with stride 2 on an even side: the odd pixel goes right and bottom."""
    padded, left = same_padding(torch.ones(1, 1, side, side), 7, 2)
    assert left == 0
    rows = padded[0, 0].sum(1)
    assert (rows > 0).nonzero().flatten().tolist() == list(range(before, before + side))
    assert padded.shape[-1] == before + side + after


@pytest.mark.parametrize(
    ("patch_size", "halvings", "projection", "expected"),
    [
        (32, 5, 1, ([2, 2, 2, 2, 2], 1)),
        (4, 5, 1, ([1, 1, 1, 2, 2], 1)),
        (2, 5, 1, ([1, 1, 1, 1, 2], 1)),
        (16, 4, 1, ([2, 2, 2, 2], 1)),
        (32, 2, 8, ([2, 2], 8)),
        (16, 2, 8, ([1, 2], 8)),
        (4, 2, 8, ([1, 1], 4)),
        (64, 5, 1, ([2, 2, 2, 2, 2], 2)),
    ],
)
def test_halvings_are_dropped_from_the_front(patch_size, halvings, projection, expected):
    assert shrink(patch_size, halvings, projection) == expected


@pytest.mark.parametrize(("size", "grid"), [(8, (4, 4)), (32, (8, 8)), (224, (7, 7))])
def test_small_images_keep_a_grid(size, grid):
    assert build("vit_r26_s32", size).grid == grid


def test_errors_say_what_to_type():
    with pytest.raises(ConfigError, match=r"a ResNet stem takes a power of two; use model\.stem\.patch_size=32"):
        resnet_stem(patch_size=12)(in_channels=3, dim=8)


def test_a_folded_model_gives_the_same_logits():
    model = randomise(tiny_hybrid()).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    model.fuse()
    torch.testing.assert_close(model(images), expected, atol=1e-6, rtol=1e-5)
