"""Joining adapters that were written to files: each answers as its own model does, nothing trains."""

import copy
from pathlib import Path

import pytest
import torch

from tests.regime.trained import encoder, random_images, regime, train, trainable
from vitexp.checkpoint.adapter import Adapter, read_adapter, trained_names, write_adapter
from vitexp.errors import CheckpointError


def trained_task(folder: Path, name: str, base: torch.nn.Module, **options: object) -> tuple[Adapter, torch.nn.Module]:
    """An adapter of three training steps, and the model that wrote it."""
    kind = "extension" if "earlier" in options else "memory_masked"
    torch.manual_seed(sum(map(ord, name)))
    model = train(regime(kind, std=1.0, **options)(copy.deepcopy(base), num_classes=3), seed=ord(name[0]))
    tensors = {key: tensor for key, tensor in model.state_dict().items() if key in trained_names(model)}
    chosen = {"run": name, "regime": kind, "model": "vit_nano", "attention": "softmax", "data": "fake", "rules": ""}
    images = {"image_size": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "classes": ["a", "b", "c"]}
    own = {"base": model.fingerprint, "memory_norm": model.memory_norm, "earlier": model.earlier, "metrics": {}}
    about = {**chosen, **images, **own}
    write_adapter(folder / f"{name}.safetensors", tensors, about)
    return read_adapter(folder / f"{name}.safetensors"), model


def joined(base: torch.nn.Module, adapters: list[Adapter]) -> torch.nn.Module:
    return regime("concat", adapters=[str(a.path) for a in adapters])(copy.deepcopy(base), num_classes=3).eval()


def test_each_answers_as_its_own_model_in_any_order(tmp_path: Path) -> None:
    base, images = encoder(), random_images()
    made = {name: trained_task(tmp_path, name, base, num_tokens=n) for name, n in (("a", 1), ("b", 2), ("c", 3))}
    for order in ("abc", "cab", "ca"):
        model = joined(base, [made[name][0] for name in order])
        assert model.names == list(order)
        assert not trainable(model)
        answers = model.answers(images)
        assert torch.equal(answers[""], base(images))
        for name in order:
            alone = made[name][1](images)
            assert alone.std() > 0.1
            torch.testing.assert_close(answers[name], alone, atol=1e-5, rtol=1e-5)


def test_an_extension_joins_behind_what_it_reads(tmp_path: Path) -> None:
    base, images = encoder(), random_images()
    (first, _), (other, _) = trained_task(tmp_path, "a", base), trained_task(tmp_path, "b", base)
    second, model = trained_task(tmp_path, "x", base, earlier=[str(first.path)])
    answers = joined(base, [other, first, second]).answers(images)
    torch.testing.assert_close(answers["x"], model(images), atol=1e-5, rtol=1e-5)
    with pytest.raises(CheckpointError, match="was trained on top of 1 earlier tasks and 1 of them"):
        joined(base, [other, second])


def test_another_base_or_width_is_refused(tmp_path: Path) -> None:
    adapter, _ = trained_task(tmp_path, "a", encoder())
    with pytest.raises(CheckpointError, match="fingerprint"):
        joined(encoder(seed=5), [adapter])
    with pytest.raises(CheckpointError, match=r"has \(2, 5, 16\) memory, and the base has 3 layers of width 16"):
        joined(encoder(depth=3), [adapter])
    write_adapter(tmp_path / "other.safetensors", {f"tasks.0.{name}": torch.ones(1) for name in "abcd"}, adapter.about)
    with pytest.raises(CheckpointError, match="has a, b, c, and the base has 2 layers"):
        joined(encoder(), [read_adapter(tmp_path / "other.safetensors")])
