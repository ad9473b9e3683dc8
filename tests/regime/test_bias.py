"""BitFit: the head and every bias, and nothing else."""

import pytest
import torch
from torch import nn

from tests.regime.trained import assert_only_moves, count, encoder, regime, trainable, vit_b32
from vitexp.errors import ConfigError
from vitexp.model.classifier import Classifier
from vitexp.optim.group import parameter_groups


def test_exactly_head_and_biases_train() -> None:
    model = regime("bias")(encoder(), num_classes=3)
    names = {name for name, _ in model.named_parameters() if name.endswith("bias")} | {"head.weight"}
    assert len(names) > 10
    assert trainable(model) == names
    assert_only_moves(model, names)


def test_count_of_vit_b32() -> None:
    assert (
        count(regime("bias")(vit_b32(), num_classes=100)) == 12 * (2304 + 768 + 3072 + 768 + 2 * 768) + 2 * 768 + 76_900
    )


def test_biases_do_not_decay() -> None:
    model = regime("bias", lr_scale={"bias": 10.0})(encoder(), num_classes=3)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.2)
    found = {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found["head.weight"] == (0.1, 0.2)
    assert found["blocks.0.norm1.bias"] == (1.0, 0.0)


class Plain(Classifier):
    """A model that is no encoder and has one scale."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(3, 4, bias=False)
        self.head = nn.Linear(4, 5)
        self.num_classes = 5

    def features(self, images):
        return []

    def forward(self, images):
        return self.head(self.scale(images.mean((2, 3))))


def test_model_without_biases() -> None:
    with pytest.raises(ConfigError, match="Plain has none besides its head's"):
        regime("bias")(Plain(), num_classes=5)


def test_a_model_that_is_no_encoder_is_welcome() -> None:
    model = Plain()
    model.scale = nn.Linear(3, 4)
    assert trainable(regime("bias")(model, num_classes=5)) == {"scale.bias", "head.weight", "head.bias"}
    assert model(torch.randn(2, 3, 4, 4)).shape == (2, 5)
