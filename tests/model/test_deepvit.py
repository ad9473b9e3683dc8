"""DeepViT: which blocks re-attend, the published sizes, gradients, maps, and its errors."""

from functools import cache

import pytest
import torch

from tests.deep import DEPTH, HEADS, SOFTMAX, tiny_deepvit
from tests.tiny import randomise
from vitexp.attention.reattention import Reattention
from vitexp.attention.softmax import Softmax
from vitexp.build import make
from vitexp.config.compose import compose
from vitexp.errors import ConfigError
from vitexp.layer.deep_stem import DeepStem

VARIANTS = [
    {},
    {"plain": 1, "pool": "mean"},
    {"plain": 2, "scale": 0.5, "cnn": True, "drop_path_rate": 0.1},
    {"attention": SOFTMAX},
]


@cache
def build(name, *overrides, size=224):
    cfg = compose([f"model={name}", "data.channels=3", *overrides])
    cfg.data.image_size, cfg.data.num_classes = size, 1000
    with torch.device("meta"):
        return make(cfg.model)


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_reach_every_parameter(options):
    """Only Theta's bias gets none in training, since the norm takes it away."""
    model = randomise(tiny_deepvit(**options)).train()
    logits = model(torch.randn(4, 3, 16, 16))
    assert logits.shape == (4, 5)
    logits.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("theta.bias"):
            assert parameter.grad.abs().max() < 1e-4, name
        else:
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("options", VARIANTS)
def test_features_are_the_final_tokens_as_a_map(options):
    model = tiny_deepvit(**options).eval()
    images = torch.randn(2, 3, 16, 16)
    (maps,) = model.features(images)
    assert maps.shape == (2, 24, 4, 4)
    assert model.strides == (4,)
    torch.testing.assert_close(maps[:, :, 1, 2], model.encode(images)[:, model.num_prefix + 6])


def test_re_attention_in_the_last_blocks_of_s_and_l():
    for name, plain, depth in (("deepvit_s", 11, 16), ("deepvit_l", 20, 32), ("deepvit_16b", 0, 16)):
        kinds = [type(block.attention) for block in build(name).blocks]
        assert kinds == [Softmax] * plain + [Reattention] * (depth - plain)
    names = list(build("deepvit_s").state_dict())
    assert sorted({int(n.split(".")[1]) for n in names if ".theta." in n}) == list(range(11, 16))


def test_s_alone_scales_its_maps_and_both_their_stream():
    small, large, deep = build("deepvit_s"), build("deepvit_l"), build("deepvit_16b")
    assert small.blocks[-1].attention.map_scale == pytest.approx(33**-0.5)
    assert large.blocks[-1].attention.map_scale == deep.blocks[-1].attention.map_scale == 1.0
    assert (small.scale, large.scale, deep.scale) == (0.5, 0.5, 1.0)
    told = build("deepvit_s", "model.attention.transform_scale=false")
    assert told.blocks[-1].attention.map_scale == 1.0


def test_another_attention_goes_into_the_same_model():
    model = build("deepvit_s", "attention=softmax")
    assert {type(block.attention) for block in model.blocks} == {Softmax}


def test_published_count_at_384():
    model = build("deepvit_l", size=384)
    assert sum(parameter.numel() for parameter in model.parameters()) == 59_043_308


def test_re_attention_costs_180_parameters_a_block():
    counts = [sum(p.numel() for p in build(name).parameters()) for name in ("deepvit_24b", "vit_d384_24b")]
    assert counts[0] - counts[1] == 24 * 180


def test_starts_as_the_authors_code_does():
    torch.manual_seed(0)
    model = tiny_deepvit()
    weights = torch.cat([block.mlp.fc1.weight.flatten() for block in model.blocks])
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.blocks[0].attention.out.bias.abs().max() == 0
    assert model.class_token.abs().max() > 0
    assert model.blocks[0].attention.theta.weight.abs().max() > 0.2


@pytest.mark.parametrize(("patch_size", "kernel", "stride"), [(16, 8, 2), (8, 8, 1), (4, 4, 1), (2, 2, 1), (32, 16, 2)])
def test_stem_strides_shrink_from_the_front(patch_size, kernel, stride):
    stem = DeepStem(in_channels=3, dim=8, channels=4, patch_size=patch_size)
    assert (stem.conv1.conv.stride, stem.projection.kernel_size) == ((stride,) * 2, (kernel,) * 2)
    assert stem(torch.randn(1, 3, 64, 32)).shape == (1, 8, 64 // patch_size, 32 // patch_size)


def test_a_folded_model_gives_the_same_logits():
    model = tiny_deepvit(cnn=True).train()
    images = torch.randn(4, 3, 16, 16)
    model(images)
    expected = model.eval()(images)
    model.fuse()
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_channels_last_leaves_the_maps_alone():
    model = tiny_deepvit(cnn=True).eval()
    images = torch.randn(2, 3, 16, 16)
    expected = model(images)
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)
    attention = model.blocks[0].attention
    q, k, _ = attention.qkv(torch.randn(2, 17, 24))
    assert attention.weights(q, k).is_contiguous()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plain": DEPTH + 1}, r"plain_blocks=4 is not a part of model\.depth=3 .* use model\.layout\.plain_blocks=0"),
        ({"scale": 0.0}, "use a value above 0"),
        ({"pool": "gap"}, "use token or mean"),
    ],
)
def test_errors_say_what_to_type(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny_deepvit(**options)


def test_a_stem_that_cannot_halve():
    with pytest.raises(ConfigError, match=r"must be even; use model\.stem\.patch_size=16"):
        DeepStem(in_channels=3, dim=8, channels=4, patch_size=17)


def test_heads_are_what_theta_mixes():
    assert tiny_deepvit().blocks[0].attention.theta.weight.shape == (HEADS, HEADS, 1, 1)
