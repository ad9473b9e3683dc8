"""The contenders are the same function, and the table says how they compare."""

import copy
from types import SimpleNamespace

import pytest
import torch

from tests.commands import command
from tests.tiny import conv_stem, tiny_vit
from vitexp.benchmark.model import awake, native, require_equal, time_model, trains, without_drops
from vitexp.errors import ConfigError

SMALL = ["data=fake", "bs=2", "size=32", "benchmark.repeats=1", "against=none"]


def test_a_plain_name_means_the_published_model() -> None:
    cfg = native(command("model=vit_s32"))
    assert (cfg.data.num_classes, cfg.data.channels, cfg.data.image_size, cfg.data.batch_size) == (1000, 3, 224, 16)
    assert cfg.model.num_classes == 1000
    assert cfg.model.stem.patch_size == 32


def test_what_the_command_chose_stays() -> None:
    cfg = native(command("model=vit_s32", "size=64", "bs=3"))
    assert (cfg.data.num_classes, cfg.data.image_size, cfg.data.batch_size) == (1000, 64, 3)
    assert native(command("model=vit_s32", "data=cifar100")).data.image_size == 32
    assert native(command()).data.channels == 1  # vit_nano is nobody's published model


@pytest.mark.parametrize("extra", [[], ["precision=bf16"]], ids=str)
def test_ours_is_timed_beside_the_plain_loop(extra: list[str]) -> None:
    report = time_model(command("model=vit_micro", *SMALL, *extra))
    assert [row[:2] for row in report.rows] == [
        (what, name) for what in ("forward", "training step") for name in ("plain", "vitexp")
    ]
    assert report.ratios.keys() == {"training step", "training step over plain", "forward", "forward over plain"}
    assert all(len(row) == len(report.columns) for row in report.rows)


def test_timms_model_takes_our_weights() -> None:
    pytest.importorskip("timm")
    report = time_model(command("model=vit_ti16", "data=fake", "bs=1", "size=112", "benchmark.repeats=1"))
    assert [row[1] for row in report.rows] == ["timm", "plain", "vitexp"] * 2
    assert report.columns[-1] == "× timm"


@pytest.mark.parametrize("model", ["mobilevit_xxs", "mobilevitv2_050", "efficientvit_m0", "swinv2"])
def test_every_family_is_timms_model_in_both_modes(model: str) -> None:
    pytest.importorskip("timm")
    size = "size=224" if model.startswith("efficient") else "size=64"
    report = time_model(command(f"model={model}", "bs=2", size, "benchmark.repeats=1"))
    assert [row[1] for row in report.rows] == ["timm", "plain", "vitexp"] * 2


def test_one_image_has_no_training_step_behind_a_batch_norm_of_vectors() -> None:
    with_norm, without = torch.nn.Sequential(torch.nn.BatchNorm1d(2)), torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    assert not trains(with_norm, batch=1)
    assert trains(with_norm, batch=2)
    assert trains(without, batch=1)
    report = time_model(command("model=efficientvit_m0", "bs=1", "against=none", "benchmark.repeats=1"))
    assert [row[0] for row in report.rows] == ["forward", "forward"]


def test_nothing_is_dropped_while_timed() -> None:
    model = without_drops(tiny_vit(dropout=0.5, drop_path_rate=0.5)).train()
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), model(images), rtol=0, atol=0)


def test_another_model_is_no_peer() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="is not model=vit_ti16"):
        time_model(command("model=vit_ti16", "bs=1", "benchmark.peer=vit_small_patch16_224"))
    with pytest.raises(ConfigError, match="no model of timm"):
        time_model(command("model=vit_ti16", "bs=1", "benchmark.peer=nothing"))
    with pytest.raises(ConfigError, match="against=none"):
        time_model(command("data=fake", "bs=1"))


def test_different_outputs_are_not_timed() -> None:
    ours = tiny_vit().eval()
    other = copy.deepcopy(ours)
    with torch.no_grad():
        other.head.bias[0] += 0.1
    cfg = SimpleNamespace(chosen=SimpleNamespace(model="tiny"))
    images = torch.randn(2, 3, 16, 16)
    require_equal({"a": ours, "b": copy.deepcopy(ours)}, images, cfg)
    with pytest.raises(ConfigError, match="differ by"):
        require_equal({"a": ours, "b": other}, images, cfg)


def test_awake_norms_are_not_the_identity() -> None:
    model = tiny_vit(stem=conv_stem(4))
    torch.nn.init.zeros_(model.blocks[0].norm1.weight)
    awake(model)
    assert all(module.weight.all() for module in model.modules() if isinstance(module, torch.nn.LayerNorm))
    means = [module.running_mean for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert means
    assert all(mean.all() for mean in means)
