"""A configuration, whoever wrote it, calls only what vitexp knows: in files, overrides, runs and weights' headers."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file

from vitexp.build import make
from vitexp.checkpoint.adapter import Adapter
from vitexp.cli import main
from vitexp.config.compose import compose, conf_dir, register
from vitexp.config.targets import TARGETS, is_known, targets
from vitexp.config.untrusted import parse_rules
from vitexp.errors import CheckpointError, ConfigError
from vitexp.run.reopen import rules_of

SMALL = ["data=fake", "size=8", "data.sizes=[16,8,8]", "bs=8", "epochs=1", "logger=none", "quiet=true"]
HOSTILE = [
    "os.system",
    "posix.system",
    "subprocess.run",
    "subprocess.Popen",
    "builtins.open",
    "builtins.exec",
    "builtins.eval",
    "builtins.__import__",
    "pathlib.Path.write_text",
    "shutil.rmtree",
    "importlib.import_module",
    "runpy.run_path",
    "pickle.load",
    "torch.load",
    "torch.hub.load",
    "torch.nn.Sequential",
    "torch.utils.data.DataLoader",
    "torch.optim._functional",
    "numpy.load",
    "yaml.unsafe_load",
    "logging.os.system",
    "logging.config.dictConfig",
    "hydra.utils.instantiate",
    "hydra._internal.utils._locate",
    "vitexp.cli.os.system",
    "vitexp.cli.main",
    "vitexp.run.folder.subprocess.run",
    "vitexp.files.folder.whole",
    "vitexp.build.make",
    "vitexp.data.file.fetch.fetch",
    "vitexp.data.file.fetch.unpack",
    "vitexp.data.file.fetch.urllib.request.urlopen",
    "vitexp.data.fake.DataError",
    "vitexp.model.vit.torch.load",
    "vitexp.model.vit.ViT.load_state_dict",
    "vitexp.logger.metrics_file.MetricsFile",
    "vitexp.checkpoint.write.save_file",
    "vitexp..os.system",
    "vitexp",
    "",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_a_hostile_target_is_refused_before_it_is_called(target: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    inner = {"_target_": target, "_args_": [f"touch {marker}"]}
    node = OmegaConf.create(
        {"_target_": "vitexp.data.augment.settings.Affine", "rotation": [inner], "shift": 0.0, "scale": 0.0}
    )
    with pytest.raises(ConfigError, match="is refused"):
        make(
            OmegaConf.create(
                {"_target_": "vitexp.data.augment.settings.Affine", "rotation": [node], "shift": 0.0, "scale": 0.0}
            )
        )
    assert not marker.exists()


def test_what_conf_names_is_known() -> None:
    found = {t for file in conf_dir().rglob("*.yaml") for t in targets(yaml.safe_load(file.read_text()))}
    assert len(found) > 40
    assert [target for target in found if not is_known(target)] == []
    assert all(is_known(target) for target in TARGETS)


def test_trust_goes_beyond_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert make(OmegaConf.create({"_target_": "pathlib.PurePath", "_args_": ["a"]}), trust=True).name == "a"
    assert "pathlib.PurePath is not vitexp's" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["schedule", "data.module", "model", "regime", "task", "augment"])
def test_an_override_that_names_a_callable(key: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, f"{key}._target_=os.system"]) == 2
    assert "os.system is refused" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "word",
    [
        "hydra.callbacks.x._target_=os.system",
        "hydra.searchpath=[file:///tmp]",
        "hydra.job_logging.handlers.x.class=os.system",
        "+hydra.callbacks.x._target_=os.system",
        "name=${oc.env:HOME}",
        "name=${oc.${select}.env:HOME}",
    ],
)
def test_ways_round_by_hydra_are_closed(word: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, word]) == 2
    assert str(Path.home()) not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: os.system\n",
        "# @package _global_\nhydra:\n  job_logging:\n    handlers:\n      x:\n        class: os.system\n",
        "# @package _global_\nschedule:\n  _target_: os.system\n",
        "# @package _global_\nlogger:\n  api_key: canary\n",
    ],
    ids=["callbacks", "logging", "target", "secret"],
)
def test_a_strangers_file_in_config_dir(content: str, tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "theirs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--config-dir", "theirs", "experiment=evil"]) == 2
    assert "canary" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_run_from_a_stranger_calls_nothing_and_cannot_trust_itself(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(SMALL) == 0
    run = (tmp_path / "outputs" / "last").resolve()
    rules, marker = run / "rules.yaml", tmp_path / "marker"
    shipped = rules.read_text()
    hostile = yaml.safe_load(shipped) | {"trust": True}
    hostile["task"] = {"_target_": "os.system", "command": f"touch {marker}"}
    rules.write_text(yaml.safe_dump(hostile))
    assert main(["list", "runs"]) == 0
    assert main(["report", "run=last"]) == 0
    assert main(["evaluate", "run=last"]) == 2
    assert "os.system is refused" in capsys.readouterr().err
    layers = "\n".join(["a0: &a0 [x,x]", *(f"a{n}: &a{n} [*a{n - 1},*a{n - 1}]" for n in range(1, 40))])
    for text in (layers, shipped + "# " + "x" * (1 << 20), "x: " + "[" * 5000, "name: ${oc.env:HOME}", "[1, 2]"):
        rules.write_text(text)
        assert main(["evaluate", "run=last"]) == 4
        assert str(Path.home()) + " " not in capsys.readouterr().err
    assert not marker.exists()


def test_the_header_of_a_weights_file_calls_nothing(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"
    evil = {"_target_": "os.system", "command": f"touch {marker}"}
    metadata = {"pruned": json.dumps({"blocks": evil}), "config": json.dumps(evil)}
    save_file({"head.weight": torch.zeros(10, 64)}, tmp_path / "evil.safetensors", metadata=metadata)
    assert main([*SMALL, "checkpoint=evil.safetensors"]) in (2, 4)
    assert not marker.exists()


def test_the_header_of_an_adapter_cannot_trust_itself(tmp_path: Path) -> None:
    register()
    written = OmegaConf.to_yaml(compose(["data=fake"])).replace("trust: false", "trust: true")
    cfg = rules_of(Adapter(tmp_path / "evil.safetensors", {}, {"rules": written}))
    assert cfg.trust is False
    cfg = parse_rules("data:\n  module:\n    _target_: vitexp.data.box_augment.BoxAugment\n", "an earlier version")
    assert cfg.data.module._target_ == "vitexp.data.box.augment.BoxAugment", "earlier names are read as today's"
    with pytest.raises(CheckpointError, match="repeats parts of itself"):
        rules_of(Adapter(tmp_path / "evil.safetensors", {}, {"rules": "a: &a [x]\nb: [*a, *a]\n"}))
