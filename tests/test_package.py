"""The metadata of the package: version, license, citation, and the cost of importing it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import vitexp
from vitexp.errors import ConfigError, require_extra

ROOT = Path(__file__).resolve().parents[1]


def test_the_files_agree_on_version_and_license() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == citation["version"] == vitexp.__version__
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert "Apache License\n" in (ROOT / "LICENSE").read_text()


def test_the_nine_papers_are_cited() -> None:
    papers = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert len({paper["identifiers"][0]["value"] for paper in papers}) == len(papers) == 9
    assert all(paper["authors"] and paper["year"] for paper in papers)


def test_importing_vitexp_imports_no_heavy_package() -> None:
    heavy = {"torch", "hydra", "omegaconf", "pytorch_lightning", "rich", "numpy"}
    code = "import vitexp, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "vitexp" in loaded.stdout.split()
    assert not heavy & set(loaded.stdout.split())


def test_a_missing_extra_says_what_to_install() -> None:
    require_extra("onnx", "json", asked="to=onnx")
    with pytest.raises(
        ConfigError, match=r"^to=x needs absent and absent.part beside .* pip install 'vitexp\[onnx\]'$"
    ):
        require_extra("onnx", "json", "absent", "absent.part", asked="to=x")


def test_every_extra_that_a_sentence_names_can_be_installed_and_is_in_dev() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = "".join(file.read_text() for file in (ROOT / "vitexp").rglob("*.py"))
    named = set(re.findall(r'require_extra\("(\w+)"', sources))
    assert {"hub", "lora", "onnx", "optuna"} <= named <= set(extras)
    (own,) = (text for text in extras["dev"] if text.startswith("vitexp["))
    assert set(own.removeprefix("vitexp[").removesuffix("]").split(",")) == set(extras) - {"dev"}
