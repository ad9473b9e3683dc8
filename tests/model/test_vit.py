"""ViT: shapes, gradients, equality with timm and Hugging Face, and its errors."""

from functools import partial

import pytest
import torch

from tests.tiny import conv_stem, patch_stem, randomise, tiny_vit
from vitexp.attention.softmax import Softmax
from vitexp.checkpoint.load import export_names
from vitexp.errors import ConfigError
from vitexp.layer.patch_embed import PatchEmbed
from vitexp.model.encoder import drop_path_rates
from vitexp.model.vit import ViT

VARIANTS = [
    {},
    {"pool": "mean"},
    {"stem": conv_stem(4)},
    {"image_size": (16, 24), "pool": "mean", "stem": conv_stem(2)},
    {"dropout": 0.1, "drop_path_rate": 0.2},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_reach_every_parameter(options):
    model = randomise(tiny_vit(**options)).train()
    images = torch.randn(4, 3, *model.image_size)
    logits = model(images)
    assert logits.shape == (4, 5)
    logits.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("options", VARIANTS)
def test_features_are_the_final_tokens_as_a_map(options):
    model = tiny_vit(**options).eval()
    images = torch.randn(2, 3, *model.image_size)
    (maps,) = model.features(images)
    height, width = model.grid
    assert maps.shape == (2, 16, height, width)
    assert (height * model.strides[0], width * model.strides[0]) == model.image_size
    tokens = model.encode(images)[:, model.num_prefix :]
    torch.testing.assert_close(maps[:, :, 1, 2], tokens[:, width + 2])


def test_forward_composes_the_named_steps():
    model = tiny_vit().eval()
    images = torch.randn(2, 3, 16, 16)
    x = model.embed(images)
    assert x.shape == (2, 1 + 16, 16)
    for block in model.blocks:
        x = block(x)
    torch.testing.assert_close(model(images), model.head(model.norm(x)[:, 0]))


def test_mean_pooling_reads_normed_tokens_and_has_no_class_token():
    model = tiny_vit(pool="mean").eval()
    assert model.class_token is None
    assert model.position.shape[1] == 16
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), model.head(model.encode(images).mean(1)))


def test_block_gives_context_to_attention_through_its_norm():
    block = randomise(tiny_vit().blocks[0]).eval()
    x, context = torch.randn(2, 6, 16), torch.randn(1, 3, 16)
    joined = block(torch.cat([x, context.expand(2, -1, -1)], dim=1))[:, :6]
    torch.testing.assert_close(block(x, context=context), joined, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "patch_size", "dim", "heads"), [("tiny", 16, 192, 3), ("base", 32, 768, 12)])
def test_logits_equal_timm(name, patch_size, dim, heads):
    import timm

    torch.manual_seed(0)
    model = ViT(
        image_size=224,
        in_channels=3,
        stem=patch_stem(patch_size),
        dim=dim,
        depth=12,
        num_heads=heads,
        mlp_ratio=4.0,
        attention=partial(Softmax, qkv_bias=True, temperature=1.0),
        num_classes=1000,
        pool="token",
    ).eval()
    reference = timm.create_model(f"vit_{name}_patch{patch_size}_224").eval()
    reference.load_state_dict(export_names(model))
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        ours, theirs = model(images), reference(images)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_fresh_and_replaced_heads():
    model = tiny_vit(num_classes=100).eval()
    images = torch.randn(3, 3, 16, 16)
    assert model(images).abs().max() > 0
    model.reset_head(7)
    logits = model(images)
    assert logits.shape == (3, 7)
    assert model.num_classes == 7
    assert torch.equal(logits, torch.zeros(3, 7))


def test_drop_path_grows_linearly():
    model = tiny_vit(depth=3, drop_path_rate=0.2)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0.0, 0.1, 0.2])
    assert drop_path_rates(0.1, 1) == [0.0]


def test_stem_choice_is_a_factory():
    assert isinstance(tiny_vit().stem, PatchEmbed)


def test_compiles_without_graph_breaks():
    model = tiny_vit(dropout=0.1, drop_path_rate=0.1).train()
    images = torch.randn(2, 3, 16, 16)
    explained = torch._dynamo.explain(model)(images)
    assert explained.graph_break_count == 0, explained.break_reasons
    assert explained.graph_count == 1


def test_bfloat16_autocast_keeps_finite():
    model = tiny_vit().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.randn(2, 3, 16, 16)).isfinite().all()


class NeedsGrid(Softmax.__mro__[1]):  # a variant that works on grid cells only
    needs_grid = True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "gap"}, "use token or mean"),
        ({"image_size": 18}, "multiple of 4; use size=16 or size=20"),
        ({"num_heads": 3}, "num_heads must divide dim; use one of"),
        ({"drop_path_rate": 1.5}, r"must be in \[0, 1\)"),
        ({"attention": NeedsGrid}, "needs mean pooling; use model.pool=mean"),
    ],
)
def test_errors_say_what_to_type(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny_vit(**options)


def test_images_of_another_size():
    with pytest.raises(ConfigError, match="24x16 pixels reached a model built for 16x16"):
        tiny_vit()(torch.randn(1, 3, 24, 16))
