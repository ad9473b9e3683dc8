"""docs/extending.md, done: its files laid out as it names them, and its commands typed."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitexp.cli import main
from vitexp.config.extensions import CODE, settings_file
from vitexp.verb.new import KINDS, texts

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE, re.M | re.S))
_RUN = re.compile(r"^<!-- run -->\n```sh\n(.*?)^```$", re.M | re.S)
COMMANDS = [line for block in _RUN.findall(PAGE) for line in block.splitlines()]
GROUPS = ("model", "attention", "data", "regime", "task", "analysis", "optimizer", "augment", "logger")
# What a test adds to a command that trains, so that it takes a second.
SHORT = ("logger=csv", "epochs=1", "quiet=true")
SETTINGS = "~/.config/vitexp/settings.toml"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[Path]:
    """A folder with the files of the page, and the user's settings."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
        patch.setenv(CODE, "")
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(folder)
        for name, text in FILES.items():
            path = settings_file() if name == SETTINGS else folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        yield folder


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(command: str, project: Path) -> None:
    program, *words = shlex.split(command)
    trains = not {"list", "check", "evaluate", "analyze"} & set(words)
    assert program == "vitexp"
    assert main([*words[:2], *(SHORT if trains else ()), *words[2:]]) == 0
    if "logger=lines" in words:
        (file,) = project.glob("outputs/*/*/lines.txt")
        assert " val/top1 " in file.read_text()


def test_each_group_has_its_example() -> None:
    """Its files are shown, and a command that is run chooses it."""
    assert {group for group in GROUPS if any(name.startswith(f"mine/{group}/") for name in FILES)} == set(GROUPS)
    typed = " ".join(COMMANDS)
    assert [group for group in GROUPS if f" -cd mine {group}=" not in typed] == []


def test_what_the_page_shows_is_what_new_writes() -> None:
    shown = {
        (kind, Path(name).stem) for kind in KINDS for name in FILES if re.fullmatch(rf"mine/{kind}/\w+\.yaml", name)
    }
    assert {kind for kind, _ in shown} == set(KINDS)
    for kind, name in shown:
        written = {f"mine/{path}": text for path, text in texts(kind, name).items()}
        assert {path: text for path, text in FILES.items() if path in written}.items() <= written.items()


@pytest.mark.slow
def test_an_installed_package_needs_no_more(project: Path, tmp_path: Path) -> None:
    """By pip, from the texts of the page, into a folder on the path."""
    site = tmp_path / "site"
    how = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *how, str(project / "package")], check=True)
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]), "XDG_CONFIG_HOME": str(tmp_path)}

    def vitexp(*words: str) -> str:
        command = [sys.executable, "-P", "-m", "vitexp", *words]
        return subprocess.run(command, cwd=tmp_path, env=where, check=True, capture_output=True, text=True).stdout

    assert "nesterov" in vitexp("list", "optimizer")
    assert "nesterov" in vitexp("--help")
    vitexp("optimizer=nesterov", "data=digits", *SHORT)
    vitexp("evaluate", "run=last")
