"""Mistakes are caught before anything runs, with the way out in the message."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.strategies import StrategyRegistry

from vitexp.config.compose import canonical, compose, conf_dir, options, to_yaml
from vitexp.config.schema import ALIASES, CHOICES, FORKED, GROUPS, STRATEGIES
from vitexp.config.small_image import patch_size, stem_stride
from vitexp.config.values import check_values
from vitexp.data.augment.settings import GEOMETRIES
from vitexp.data.pixels import INTERPOLATIONS
from vitexp.data.sampling import SAMPLERS
from vitexp.errors import ConfigError
from vitexp.logger import choose as logger

EVERY_OPTION = [(group, option) for group in GROUPS for option in options(group)]


@pytest.mark.parametrize(("group", "option"), EVERY_OPTION, ids="=".join)
def test_every_shipped_option_composes(group: str, option: str) -> None:
    cfg = compose([f"{group}={option}"])
    assert cfg.chosen[group] == option or group == "experiment"


def test_every_group_is_a_folder_and_every_folder_a_group() -> None:
    assert {path.name for path in conf_dir().iterdir() if path.is_dir()} == set(GROUPS)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("modle=vit_ti16", "did you mean 'model'"),
        ("model=vit_t16", "did you mean 'vit_ti16'"),
        ("optimizer.lrr=0.1", "did you mean 'optimizer.lr'"),
        ("epoch=3", "did you mean 'epochs'"),
        ("model.dimm=3", "did you mean 'model.dim'"),
        ("learning_rate=3", "unknown key"),
        ("lr=abc", "takes a number"),
        ("lr=true", "takes a number"),
        ("epochs=2.5", "takes a whole number"),
        ("compile=1.5", "compile"),
        ("lr=-1", "above 0"),
        ("bs=0", "above 0"),
        ("precision=fp8", "use auto, 32, bf16, 16 or 64"),
        ("select=beest", "did you mean 'best'"),
        ("+foo=1", "every key has a shipped value"),
        ("~optimizer.lr", "every key has a shipped value"),
        ("lr=1e-3,1e-4", "add -m"),
        ("trian", "did you mean 'train'"),
        ("data.mean=3", "a list"),
        ("trainer.strategy=ddp_spawn", "use trainer.strategy=ddp"),
        ("trainer.strategy=ddp_fork_find_unused_parameters_true", "use trainer.strategy=ddp"),
    ],
)
def test_mistakes_name_the_way_out(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert " +" not in message, "Hydra's advice to add + is never repeated"


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """Once for the many values below; analysis and folder have keys that the default has not."""
    return compose(["data=folder", "analysis=similarity"])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("trainer.strategy", "dpp", "did you mean 'ddp'"),
        ("trainer.accelerator", "gpuu", "did you mean 'gpu'"),
        ("trainer.channels_last", "maybe", "use auto, true or false"),
        ("trainer.validate_every", 0, "above 0"),
        ("trainer.checkpoint_seconds", -1.0, "0 or more"),
        ("trainer.ema", "abc", "is text; use a number from 0 to below 1"),
        ("trainer.ema", 1.5, "from 0 to below 1"),
        ("trainer.ema", True, "is true or false"),
        ("data.val_fraction", 1.0, "from 0 to below 1"),
        ("data.val_fraction", -0.1, "from 0 to below 1"),
        ("data.test_fraction", 1, "from 0 to below 1"),
        ("data.geometry", "afine", "did you mean 'affine'"),
        ("data.interpolation", "bicubc", "did you mean 'bicubic'"),
        ("data.on_corrupt", "skp", "did you mean 'skip'"),
        ("data.sampler", "pakced", "did you mean 'packed'"),
        ("data.labels", "corse", "did you mean 'coarse'"),
        ("augment.geometry", "crop_flp", "did you mean 'crop_flip'"),
        ("task.loss", "sofmax", "did you mean 'softmax'"),
        ("model.pool", "meen", "did you mean 'mean'"),
        ("logger.choice", "tensorbord", "did you mean 'tensorboard'"),
        ("analysis.split", "vall", "did you mean 'val'"),
    ],
)
def test_values_are_checked_without_the_constructors(composed: DictConfig, key: str, value: object, said: str) -> None:
    cfg = composed.copy()
    OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(ConfigError, match=said):
        check_values(cfg)


def test_what_may_be_chosen_is_what_the_constructors_take() -> None:
    assert CHOICES["augment.geometry"] == CHOICES["data.geometry"] == (*GEOMETRIES, "boxes")
    assert CHOICES["data.interpolation"] == INTERPOLATIONS
    assert CHOICES["data.sampler"] == SAMPLERS
    assert CHOICES["logger.choice"] == logger.CHOICES
    assert set(CHOICES["trainer.accelerator"]) == {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}
    names = [n for n in StrategyRegistry.available_strategies() if not any(word in n for word in FORKED)]
    assert set(STRATEGIES) == {"auto", *names}


@pytest.mark.parametrize(
    "override", ["lr=1", "trainer.devices=2", "trainer.ema=0.9", "name=null", "optimizer.lr=${optimizer.weight_decay}"]
)
def test_an_int_is_a_float_and_null_and_references_are_free(override: str) -> None:
    compose([override])


@pytest.mark.parametrize("value", ["./데이터", "a=b/c.ckpt", "a b", "it's"])
def test_bare_paths_need_no_quotes(value: str) -> None:
    assert compose([f"checkpoint={value}"]).checkpoint == value


@pytest.mark.parametrize(("short", "key"), ALIASES.items())
def test_short_names_mean_their_canonical_key(short: str, key: str) -> None:
    values = {"lr": 0.5, "wd": 0.5, "bs": 96, "size": 16, "backbone": "vit_s16", "what": "data", "against": "none"}
    value = values[short]
    if short == "backbone":  # a model's name, which becomes its node
        assert OmegaConf.select(compose(["model=detr", f"{short}={value}"]), key).dim == 384
    else:
        assert OmegaConf.select(compose([f"{short}={value}"]), key) == value
    assert canonical(f"{short}={value}") == f"{key}={value}"


def test_patch_size_follows_the_small_image_rule() -> None:
    assert patch_size(16, 224) == 16
    assert patch_size(32, 224) == 32
    assert patch_size(14, 224) == 14
    assert patch_size(16, 384) == 16
    assert patch_size(16, 32) == patch_size(32, 32) == 4
    assert patch_size(16, 64) == 8
    assert patch_size(16, 8) == 2
    assert patch_size(16, 28) == 2


def test_stem_stride_leaves_a_map_worth_stages() -> None:
    assert stem_stride(16, 224) == 16
    assert stem_stride(16, 64) == 8
    assert stem_stride(16, 32) == 4
    assert stem_stride(4, 32) == 4
    assert stem_stride(8, 32) == 4
    assert stem_stride(16, 8) == 1


def test_the_rule_shows_in_the_printed_configuration() -> None:
    text = to_yaml(compose(["model=vit_s16", "data=cifar100"]))
    line = next(line for line in text.splitlines() if "${patch_size:" in line)
    assert "${patch_size:16,${data.image_size}}" in line
    assert line.endswith("# = 4")
    assert yaml.safe_load(text)["seed"] == 0


def test_model_brings_attention_and_the_command_line_has_the_last_word() -> None:
    assert compose([]).model.attention._target_ == "vitexp.attention.softmax.Softmax"


def test_a_users_own_folder_of_options(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    assert compose(["experiment=mine"], config_dirs=[tmp_path]).seed == 7
    with pytest.raises(ConfigError, match="mine"):
        compose(["experiment=mine"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["--cfg", "job"],
        ["--info", "defaults"],
        ["list", "models"],
        ["list", "attention"],
        ["list", "runs"],
        ["modle=x"],
        ["lr=abc"],
    ],
    ids=" ".join,
)
def test_answers_without_importing_torch(arguments: list[str], tmp_path: Path) -> None:
    code = f"import sys; from vitexp.cli import main; main({arguments!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_further_answers_without_importing_torch(tmp_path: Path) -> None:
    """One process for them all."""
    code = (
        "import os, sys; from vitexp.cli import main;"
        "os.environ |= {'COMP_LINE': 'vitexp model=v', 'COMP_POINT': '14'};"
        "told = [main(['list', what]) for what in ('data', 'regimes', 'experiments', 'adapters')];"
        "told += [main(['-m', word]) for word in ('lr=1e-3,abc', 'model=vit_t16,vit_s16')];"
        "told += [main(['trainer.ema=2']), main(['-sc', 'query=bash'])];"
        "assert told == [0, 0, 0, 0, 2, 2, 2, 0], told; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(
    ("model", "size", "mean"),
    [("vit_s16", 224, 0.5), ("swinv2", 256, 0.485), ("efficientvit_m5", 224, 0.485), ("mobilevit_s", 256, 0.0)],
)
def test_imagenet_comes_as_the_published_weights_of_the_model_want_it(model: str, size: int, mean: float) -> None:
    cfg = compose([f"model={model}", "data=imagenet"])
    assert (cfg.data.image_size, cfg.data.mean[0]) == (size, mean)
    assert compose([f"model={model}", "data=imagenet", "size=160"]).data.image_size == 160
    assert compose(["model=vit_nano", "data=imagenet"]).data.image_size == 224  # nobody's published model


def test_what_is_composed_again_is_a_copy_and_edits_are_seen(tmp_path: Path) -> None:
    """Composing is remembered for as long as the files stay as they are."""
    first = compose(["model=vit_micro"])
    first.model.depth, first.seed = 99, 99
    assert compose(["model=vit_micro"]).model.depth != 99
    (tmp_path / "model").mkdir()
    mine = tmp_path / "model" / "mine.yaml"
    text = (conf_dir() / "model" / "vit_micro.yaml").read_text()
    for depth in (3, 17):
        mine.write_text(re.sub(r"^  depth: .*$", f"  depth: {depth}", text, flags=re.MULTILINE))
        assert compose(["model=mine"], config_dirs=[tmp_path]).model.depth == depth


@pytest.mark.parametrize(
    ("typed", "said"), [("seed=null", "seed takes a whole number, as in seed=0"), ("quiet=null", "takes true or false")]
)
def test_a_key_that_cannot_be_empty_says_what_it_takes(typed: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{typed} is not possible .*{said}"):
        compose([typed])
