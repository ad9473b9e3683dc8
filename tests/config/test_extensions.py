"""Options and code from outside: found where they are, called only if the user trusts them."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vitexp.build import make
from vitexp.cli import main
from vitexp.config import extensions
from vitexp.config.compose import compose, options
from vitexp.config.extensions import CODE, installed, project_file, settings_file, trusted
from vitexp.config.targets import is_known
from vitexp.errors import ConfigError

NODE = OmegaConf.create({"_target_": "parts_of_mine.double", "value": 2})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """An empty home, an empty project to stand in, and a search path that is put back."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv(CODE, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("parts_of_mine")]:
        del sys.modules[name]


@pytest.fixture
def mine(home: Path) -> Path:
    """A folder with an optimizer of its own."""
    (home / "mine" / "optimizer").mkdir(parents=True)
    (home / "mine" / "parts_of_mine.py").write_text(
        "import os\nfrom json import dumps\ndef double(value):\n    return 2 * value\nnumber = 3\n"
    )
    text = "_target_: parts_of_mine.double\nlr: 0.1\nweight_decay: 0.0\nvalue: 2\n"
    (home / "mine" / "optimizer" / "double.yaml").write_text(text)
    return home / "mine"


def trust(*names: str) -> None:
    settings_file().parent.mkdir(parents=True, exist_ok=True)
    settings_file().write_text(f"trusted = {json.dumps(names)}\n")


def test_what_is_not_trusted_is_refused_with_the_line_to_add(mine: Path) -> None:
    cfg = compose(["optimizer=double"], config_dirs=[mine])
    assert str(mine) not in sys.path
    with pytest.raises(ConfigError, match="is refused") as refused:
        make(cfg.optimizer)
    line = f'put the line trusted = ["parts_of_mine"] into {settings_file()}'
    assert line in str(refused.value)
    trust("other")
    with pytest.raises(ConfigError) as refused:
        make(cfg.optimizer)
    assert 'trusted = ["other", "parts_of_mine"]' in str(refused.value)


@pytest.mark.parametrize("place", ["settings", "project", "above"])
def test_what_the_user_has_named_is_called(mine: Path, place: str, monkeypatch) -> None:
    if place == "settings":
        trust("parts_of_mine")
    else:
        Path("pyproject.toml").write_text('[tool.vitexp]\ntrusted = ["parts_of_mine"]\n')
    if place == "above":
        Path("below").mkdir()
        monkeypatch.chdir("below")
    compose([], config_dirs=[mine])
    assert sys.path[-1] == str(mine), "last, so that nothing there hides an installed module"
    assert make(NODE) == 4


def test_a_folder_beside_trusted_options_is_found_by_further_processes(mine: Path, monkeypatch) -> None:
    trust("parts_of_mine")
    compose([], config_dirs=[mine])
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(mine)])
    assert os.environ[CODE] == str(mine)
    assert make(NODE) == 4


def test_trust_is_of_what_is_defined_there(mine: Path) -> None:
    trust("parts_of_mine")
    compose([], config_dirs=[mine])
    for target in ("parts_of_mine.os.system", "parts_of_mine.dumps"):
        with pytest.raises(ConfigError):
            make(OmegaConf.create({"_target_": target}))
    trust("parts_of_mine", "json.dumps")
    assert make(OmegaConf.create({"_target_": "json.dumps", "obj": 1})) == "1"
    assert not is_known("parts_of_mine_too.double")
    for target, said in (("parts_of_mine.number", "no class or function number"), ("parts_of_mine.x.y", "fails")):
        with pytest.raises(ConfigError, match=said):
            is_known(target)


def test_trusted_code_that_is_not_found(home: Path) -> None:
    trust("parts_of_mine")
    with pytest.raises(ConfigError, match="give --config-dir the folder that it is in"):
        make(NODE)


def test_an_error_in_trusted_code_is_not_called_a_bug(mine: Path, monkeypatch, capsys) -> None:
    trust("parts_of_mine")
    compose([], config_dirs=[mine])
    monkeypatch.setattr("vitexp.cli.dispatch", lambda words: make(OmegaConf.create({**NODE, "value": None})))
    assert main([]) == 1
    said = f"in your own code (TypeError): {mine}/parts_of_mine.py, line 4"
    assert said in capsys.readouterr().err
    trust()
    assert main([]) == 2, "the code is not called"


def test_trust_typed_holds_for_one_command_and_finds_the_code(mine: Path) -> None:
    compose(["trust=true"], config_dirs=[mine])
    assert make(NODE, trust=True) == 4
    assert trusted() == list(installed())


@pytest.mark.parametrize("text", ["trusted = 3", 'trusted = [""]', "trusted = [", 'trusted = "mynet"'])
def test_a_damaged_file_of_settings_is_named(home: Path, text: str) -> None:
    trust()
    settings_file().write_text(text)
    with pytest.raises(ConfigError, match=r"settings\.toml"):
        trusted()


@pytest.mark.parametrize("file", ["run.json", "weights.safetensors", "model.ckpt", "rules.yaml"])
def test_a_pyproject_that_came_with_weights_is_not_read(home: Path, file: str, monkeypatch) -> None:
    Path("pyproject.toml").write_text('[tool.vitexp]\ntrusted = ["os"]\n')
    assert project_file() == home / "project" / "pyproject.toml"
    Path(file).touch()
    assert project_file() is None
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert project_file() is None


def test_the_search_for_a_pyproject_ends_at_the_top_of_a_repository(home: Path) -> None:
    (home / "pyproject.toml").write_text('[tool.vitexp]\ntrusted = ["os"]\n')
    assert project_file() == home / "pyproject.toml"
    Path(".git").mkdir()
    assert project_file() is None


@pytest.mark.parametrize("line", ["trust: true", "trust: ${oc.select:seven,true}", "trust: ${quiet}"])
def test_a_file_of_options_cannot_trust_itself(home: Path, line: str, capsys) -> None:
    (home / "theirs" / "experiment").mkdir(parents=True)
    (home / "theirs" / "experiment" / "evil.yaml").write_text(
        f"# @package _global_\n{line}\nschedule:\n  _target_: os.system\n"
    )
    assert main(["-cd", str(home / "theirs"), "experiment=evil", "quiet=true"]) == 2
    assert "trust: in a file of options is refused" in capsys.readouterr().err


def test_an_option_with_the_name_of_another_is_refused(mine: Path) -> None:
    (mine / "optimizer" / "adamw.yaml").write_text("lr: 1.0\n")
    assert options("optimizer", [mine]).count("adamw") == 1
    with pytest.raises(ConfigError, match="rename the second"):
        compose(["optimizer=adamw"], config_dirs=[mine])


def test_values_of_a_foreign_class_are_its_own_affair(mine: Path) -> None:
    (mine / "task").mkdir()
    (mine / "task" / "other.yaml").write_text("_target_: parts_of_mine.double\nloss: focal\n")
    assert compose(["task=other"], config_dirs=[mine]).task.loss == "focal"
    with pytest.raises(ConfigError, match=r"task\.loss=focal is not known"):
        compose(["task.loss=focal"])
    with pytest.raises(ConfigError, match=r"optimizer\.lr=-1"):
        compose(["optimizer=double", "lr=-1.0"], config_dirs=[mine])


def test_help_and_lists_show_a_folder_of_options(mine: Path, capsys) -> None:
    (mine / "attention").mkdir()
    (mine / "model").mkdir()
    (mine / "attention" / "flat.yaml").write_text("# @package model.attention\n_target_: flat.Flat\n_partial_: true\n")
    (mine / "flat.py").write_text(
        "from vitexp.attention.base import DenseAttention\nclass Flat(DenseAttention):\n    takes_bias: bool = False\n"
    )
    (mine / "model" / "ournet.yaml").write_text("# Ours.\n_target_: ournet.OurNet\n")
    for words in (["--help"], ["list", "optimizer"], ["list", "models"], ["list", "attention"]):
        assert main(["-cd", str(mine), *words]) == 0
    said = capsys.readouterr().out
    assert said.count("double") == 2
    assert said.count("ournet") == 2
    row = next(line.split() for line in said.splitlines() if line.strip().startswith("flat"))
    assert row[1:4] == ["yes", "no", "no"]


@pytest.fixture
def package(home: Path, monkeypatch) -> Path:
    """An installed package with options, as pip leaves it."""
    site = home / "site"
    (site / "parts_of_mine" / "conf" / "optimizer").mkdir(parents=True)
    (site / "parts_of_mine" / "__init__.py").write_text("def double(value):\n    return 2 * value\n")
    (site / "parts_of_mine" / "conf" / "optimizer" / "double.yaml").write_text("_target_: parts_of_mine.double\n")
    info = site / "parts_of_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parts-of-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{extensions.GROUP}]\nmine = parts_of_mine\n")
    monkeypatch.syspath_prepend(str(site))
    return site / "parts_of_mine"


def test_an_installed_package_brings_options_and_is_trusted(package: Path, capsys) -> None:
    assert "double" in options("optimizer")
    assert compose(["optimizer=double"]).optimizer._target_ == "parts_of_mine.double"
    assert main(["list", "optimizer"]) == 0
    assert "double" in capsys.readouterr().out
    assert make(NODE) == 4
    assert compose(["optimizer=double"], config_dirs=[package / "conf"]), "the same folder once more is no second"


def test_an_entry_point_without_options_is_named(package: Path) -> None:
    (package / "conf").rename(package / "config")
    with pytest.raises(ConfigError, match="uninstall parts-of-mine"):
        options("optimizer")
