"""LoRA through peft: starts as the base, trains the head and the low-rank parts, says what is missing."""

import copy
import sys

import pytest
import torch

from tests.regime.trained import assert_only_moves, count, encoder, random_images, regime, train, trainable, vit_b32
from vitexp.errors import ConfigError

pytest.importorskip("peft")


def test_starts_as_the_base_and_trains_only_its_parts() -> None:
    base = encoder()
    model = regime("lora", rank=2)(copy.deepcopy(base), num_classes=5)
    torch.testing.assert_close(model(random_images()), base(random_images()))
    names = {f"blocks.{i}.attention.qkv_projection.lora_{part}.default.weight" for i in (0, 1) for part in "AB"}
    assert trainable(model) == names | {"head.weight", "head.bias"}
    assert_only_moves(model, names | {"head.weight", "head.bias"})


def test_count_of_vit_b32() -> None:
    assert count(regime("lora")(vit_b32(), num_classes=100)) == 12 * 8 * (768 + 3 * 768) + 76_900


def test_other_classes_and_rates() -> None:
    model = regime("lora", rank=2, lr_scale={"lora": 3.0})(encoder(), num_classes=3)
    assert model(random_images()).shape == (4, 3)
    assert model.rates.keys() == trainable(model)
    assert {rate for name, (rate, _) in model.rates.items() if "lora" in name} == {3.0}


def test_the_change_is_of_low_rank_and_scaled() -> None:
    model = regime("lora", rank=2, alpha=6)(encoder(), num_classes=3)
    train(model)
    layer = model.blocks[1].attention.qkv_projection
    x = torch.randn(3, 16)
    change = 3.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert change.abs().max() > 0
    assert torch.linalg.matrix_rank(change) <= 2
    torch.testing.assert_close(layer(x) - layer.base_layer(x), x @ change.T, atol=1e-4, rtol=1e-4)


def test_no_drift_in_train_mode() -> None:
    model = regime("lora")(encoder(), num_classes=3)
    assert torch.equal(model.train()(random_images()), model.eval()(random_images()))


def test_errors_say_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="it has fc1, fc2, head, out, qkv_projection"):
        regime("lora", targets=["query"])(encoder(), num_classes=3)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'vitexp\[lora\]'"):
        regime("lora")(encoder(), num_classes=3)
