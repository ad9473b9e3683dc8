"""Head and class token train; the base's output changes, which is why masked memory exists."""

import pytest
import torch
from torch import nn

from tests.regime.trained import assert_only_moves, count, encoder, random_images, regime, train, trainable, vit_b32
from tests.tiny import tiny_vit
from vitexp.errors import ConfigError

NAMES = {"class_token", "head.weight", "head.bias"}


def test_exactly_head_and_class_token_train() -> None:
    model = regime("class_token")(encoder(), num_classes=3)
    assert trainable(model) == NAMES
    assert_only_moves(model, NAMES)
    assert model(random_images()).shape == (4, 3)


def test_the_published_count() -> None:
    assert count(regime("class_token")(vit_b32(), num_classes=100)) == 77_668


def test_the_other_tokens_see_the_change() -> None:
    """The negative control of masked memory."""
    model = encoder()
    before = model.encode(random_images())
    train(regime("class_token")(model, num_classes=3))
    after = model.encode(random_images())
    assert (before - after)[:, 1:].abs().max() > 1e-3


def test_starts_as_a_copy_or_at_random() -> None:
    base = encoder()
    start = base.class_token.detach().clone()
    assert torch.equal(regime("class_token")(base, num_classes=5).class_token, start)
    assert not torch.equal(regime("class_token", class_token="random")(base, num_classes=5).class_token, start)
    with pytest.raises(ConfigError, match="copy or random; use copy"):
        regime("class_token", class_token="zero")(encoder(), num_classes=5)


@pytest.mark.parametrize(("model", "message"), [(nn.Identity(), "needs a ViT"), (tiny_vit(pool="mean"), "pool=token")])
def test_needs_a_class_token(model: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        regime("class_token")(model, num_classes=3)
