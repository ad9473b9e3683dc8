"""Memory that every token reads: the plain model without it, the published counts, what trains and what stays."""

import copy
from functools import partial

import pytest
import torch

from tests.regime.trained import (
    MAPS,
    assert_only_moves,
    count,
    encoder,
    random_images,
    regime,
    train,
    trainable,
    vit_b32,
)
from tests.tiny import tiny_vit
from vitexp.attention.base import DenseAttention
from vitexp.build import count_parameters
from vitexp.errors import ConfigError
from vitexp.optim.group import parameter_groups
from vitexp.run.header import trained_parts

NAMES = {"class_token", "head.weight", "head.bias", "blocks.0.memory", "blocks.1.memory"}


def test_exactly_head_class_token_and_memory_train() -> None:
    model = regime("memory")(encoder(), num_classes=3)
    assert trainable(model) == NAMES
    assert_only_moves(model, NAMES)


@pytest.mark.parametrize(("tokens", "expected"), [(1, 86_884), (2, 96_100), (5, 123_748), (10, 169_828), (20, 261_988)])
def test_the_published_counts(tokens: int, expected: int) -> None:
    """ViT-B/32, 100 classes: D + L m D + D K + K."""
    for name in ("memory", "memory_masked"):
        assert count(regime(name, num_tokens=tokens)(vit_b32(), num_classes=100)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("memory", "class_token 768, blocks.*.memory 46,080, head 76,900 (0.141 %)"),
        ("memory_masked", "tasks.*.class_token 768, tasks.*.memory 46,080, tasks.*.head 76,900 (0.141 %)"),
        ("full", ""),
    ],
)
def test_the_header_says_what_trains(name: str, expected: str) -> None:
    """ViT-B/32, 100 classes, 5 tokens: 768 + 46,080 + 76,900 = 123,748."""
    model = regime(name)(vit_b32(), num_classes=100)
    assert trained_parts(model) == expected
    assert name == "full" or count(model) == count_parameters(model)[0] == 123_748


@pytest.mark.parametrize("attention", MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_tokens_it_is_the_plain_model_to_the_bit(attention: str, dtype: torch.dtype) -> None:
    plain = encoder(attention).to(dtype)
    model = regime("memory", num_tokens=0)(copy.deepcopy(plain), num_classes=5)
    images = random_images().to(dtype)
    assert torch.equal(model(images), plain(images))


@pytest.mark.parametrize("attention", MAPS)
@pytest.mark.parametrize("memory_norm", [True, False])
def test_memory_is_read_as_more_tokens_that_are_thrown_away(attention: str, memory_norm: bool) -> None:
    """Against the paper's picture: join, attend, keep the first N + 1 outputs."""
    model = regime("memory", memory_norm=memory_norm, std=1.0)(encoder(attention), num_classes=5)
    images = random_images()
    x = model.embed(images)
    for block in model.blocks:
        memory = block.memory.expand(len(x), -1, -1)
        joined = torch.cat([block.norm1(x), block.norm1(memory) if memory_norm else memory], dim=1)
        x = x + block.attention(joined)[:, : x.shape[1]]
        x = x + block.mlp(block.norm2(x))
    torch.testing.assert_close(model.encode(images), model.norm(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", MAPS)
@pytest.mark.parametrize("name", ["memory", "vpt"])
def test_memory_keys_computed_once_give_the_same(name: str, attention: str) -> None:
    base = encoder(attention)
    base.fuse()  # so that only the memory differs
    model, images = regime(name)(base, num_classes=5), random_images()
    fresh = model(images)
    model.fuse()
    assert model.blocks[1].cached_k.shape == (1, 2, 5, 8)
    torch.testing.assert_close(model(images), fresh, atol=1e-6, rtol=1e-6)
    assert trainable(model) & {"blocks.0.memory"}
    assert not [key for key in model.state_dict() if "cached" in key]
    with torch.no_grad():
        model.blocks[0].memory.neg_()
    assert (model.train()(images) - fresh).abs().max() > 1e-3, "what was computed once is forgotten in training"


def test_a_single_memory_token_is_read() -> None:
    model, images = regime("memory", num_tokens=1, std=1.0)(encoder(), num_classes=5), random_images()
    before = model(images)
    with torch.no_grad():
        model.blocks[0].memory.neg_()
    assert (model(images) - before).abs().max() > 1e-3


def test_kept_keys_are_what_attention_reads() -> None:
    block = regime("memory", std=1.0)(encoder(), num_classes=5).blocks[0]
    block.fuse()
    assert block._context() == (block.cached_k, block.cached_v)
    assert {kept.dtype for kept in block.double()._context()} == {torch.double}, "they go where the block goes"
    block.float()
    block.forget()
    torch.testing.assert_close(block._context(), block.norm1(block.memory[None]))


def test_every_token_sees_the_memory() -> None:
    """The negative control of masked memory."""
    base = encoder()
    before = base.encode(random_images())
    after = regime("memory")(base, num_classes=5).encode(random_images())
    assert ((before - after).abs().amax(dim=(0, 2)) > 1e-4).all()


def test_memory_starts_at_the_papers_spread() -> None:
    torch.manual_seed(0)
    model = regime("memory", num_tokens=10)(tiny_vit(dim=96, depth=12), num_classes=5)
    values = torch.cat([block.memory for block in model.blocks])
    assert values.numel() >= 9_216
    assert values.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_random_class_token_starts_at_the_spread_of_memory() -> None:
    torch.manual_seed(0)
    model = regime("memory", class_token="random")(encoder(dim=256), num_classes=3)
    assert model.class_token.std().item() == pytest.approx(0.02, rel=0.2)


def test_each_part_has_its_rate_and_decay() -> None:
    options = {"lr_scale": {"memory": 3.0, "class_token": 0.5}, "weight_decay": {"memory": 0.01}}
    model = regime("memory", **options)(encoder(), num_classes=3)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.2, layer_decay=0.5)
    found = {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found == {
        "head.weight": (0.1, 0.2),
        "head.bias": (0.1, 0.0),
        "class_token": (0.05, 0.0),
        "blocks.0.memory": (pytest.approx(0.3), 0.01),
        "blocks.1.memory": (pytest.approx(0.3), 0.01),
    }


def test_no_dropout_no_drift() -> None:
    model = regime("memory")(encoder(), num_classes=3)
    images = random_images()
    assert torch.equal(model.train()(images), model.eval()(images))
    assert not any(m.training for block in model.train().blocks for m in block.modules())


def test_a_copy_trains_by_itself() -> None:
    model = regime("memory")(encoder(), num_classes=3)
    twin = train(copy.deepcopy(model))
    assert twin.state_dict().keys() == model.state_dict().keys()
    assert not torch.equal(twin.blocks[0].memory, model.blocks[0].memory)


@pytest.mark.slow
def test_compiles_without_graph_breaks() -> None:
    model = regime("memory")(encoder(), num_classes=3)
    explained = torch._dynamo.explain(model)(random_images())
    assert explained.graph_break_count == 0, explained.break_reasons


class NoMap(DenseAttention):
    takes_context = False
    weights = attend = None


def test_needs_an_attention_with_a_map() -> None:
    NoMap.__abstractmethods__ = frozenset()
    model = tiny_vit(attention=partial(NoMap, qkv_bias=True))
    for name in ("memory", "memory_masked", "vpt"):
        with pytest.raises(ConfigError, match=f"regime={name} needs an attention with a map; attention=nomap has none"):
            regime(name)(model, num_classes=3)
