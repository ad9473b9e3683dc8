"""Deep prompts: what the authors' code computes, prompts going through each block and thrown away behind it."""

import torch

from tests.regime.trained import assert_only_moves, count, encoder, random_images, regime, trainable, vit_b32

NAMES = {"head.weight", "head.bias", "blocks.0.memory", "blocks.1.memory"}


def test_exactly_head_and_prompts_train() -> None:
    model = regime("vpt")(encoder(), num_classes=3)
    assert trainable(model) == NAMES
    assert_only_moves(model, NAMES)


def test_count() -> None:
    assert count(regime("vpt")(vit_b32(), num_classes=100)) == 123_748 - 768


def test_prompts_through_the_blocks_give_the_same() -> None:
    model = regime("vpt")(encoder(), num_classes=5)
    images = random_images()
    x = model.embed(images)
    for block in model.blocks:
        prompts = block.memory.expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], prompts, x[:, 1:]], dim=1)
        x = x + block.attention(block.norm1(x))
        x = x + block.mlp(block.norm2(x))
        x = torch.cat([x[:, :1], x[:, 6:]], dim=1)
    torch.testing.assert_close(model.encode(images), model.norm(x), atol=1e-5, rtol=1e-5)


def test_start_is_uniform_within_the_authors_bound() -> None:
    model = regime("vpt", num_tokens=50)(encoder(), num_classes=5)
    bound = (6 / (3 * 4**2 + 16)) ** 0.5
    values = model.blocks[0].memory.abs()
    assert 0.95 * bound < values.max() <= bound


def test_works_without_a_class_token() -> None:
    model = regime("vpt")(encoder(pool="mean"), num_classes=3)
    assert model(random_images()).shape == (4, 3)


def test_prompts_have_their_rate() -> None:
    model = regime("vpt", lr_scale={"memory": 3.0})(encoder(), num_classes=3)
    assert model.rates.keys() == NAMES
    assert model.rates["blocks.0.memory"][0] == 3.0
