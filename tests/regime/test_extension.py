"""Model extension: a new task on top of earlier ones, which stay as they are."""

from pathlib import Path

import pytest
import torch

from tests.regime.test_concat import trained_task
from tests.regime.trained import assert_only_moves, encoder, random_images, regime, trainable
from vitexp.checkpoint.adapter import put_adapter
from vitexp.errors import CheckpointError, ConfigError

NAMES = {f"tasks.1.{part}" for part in ("class_token", "memory", "head.weight", "head.bias")}


def test_exactly_the_new_task_trains_and_reads_the_earlier_one(tmp_path: Path) -> None:
    base, images = encoder(), random_images()
    earlier, alone = trained_task(tmp_path, "a", base)
    model = regime("extension", earlier=[str(earlier.path)], std=1.0)(base, num_classes=4)
    assert trainable(model) == NAMES
    assert model.reads == [[], [0]]
    assert_only_moves(model, NAMES)
    torch.testing.assert_close(model.answers(images)["a"], alone(images), atol=1e-5, rtol=1e-5)
    before = model(images)
    with torch.no_grad():
        model.tasks[0].memory.neg_()
    assert (model(images) - before).abs().max() > 1e-3


def test_its_adapter_fits_only_over_the_same_earlier_tasks(tmp_path: Path) -> None:
    base = encoder()
    first, _ = trained_task(tmp_path, "a", base)
    other, _ = trained_task(tmp_path, "b", base)
    second, model = trained_task(tmp_path, "x", base, earlier=[str(first.path)])
    again = regime("extension", earlier=[str(first.path)])(encoder(), num_classes=3).eval()
    put_adapter(again, second.path)
    assert torch.equal(again(random_images()), model(random_images()))
    wrong = regime("extension", earlier=[str(other.path)])(encoder(), num_classes=3)
    with pytest.raises(CheckpointError, match="other earlier tasks"):
        put_adapter(wrong, second.path)


def test_errors_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"use regime.earlier=\[outputs/last\]"):
        regime("extension")(encoder(), num_classes=3)
    first, _ = trained_task(tmp_path, "a", encoder())
    with pytest.raises(ConfigError, match=r"use regime.memory_norm=true"):
        regime("extension", earlier=[str(first.path)], memory_norm=False)(encoder(), num_classes=3)
    with pytest.raises(CheckpointError, match="holds no adapter"):
        regime("extension", earlier=[str(tmp_path / "none")])(encoder(), num_classes=3)


def test_the_new_task_has_its_rates(tmp_path: Path) -> None:
    earlier, _ = trained_task(tmp_path, "a", encoder())
    model = regime("extension", earlier=[str(earlier.path)], lr_scale={"memory": 3.0})(encoder(), num_classes=3)
    assert model.rates.keys() == NAMES
    assert model.rates["tasks.1.memory"][0] == 3.0
