"""Hydra 1.4 with OmegaConf 2.4, release candidates: the same configurations and numbers as 1.3, and no warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import COMPOSE_EVERYTHING

ROOT = Path(__file__).resolve().parents[2]
CANDIDATES = ("hydra-core>=1.4.0rc3,<1.5", "omegaconf>=2.4.1rc1,<2.5")

# A trusted function may return a model of any class, which Hydra 1.4 would not let through by itself.
FOREIGN = """
from omegaconf import OmegaConf
from vitexp.build import make
print(type(make(OmegaConf.create({"_target_": "mine.model"}), trust=True)).__name__)
"""


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds them, to stand before the installed releases on the path."""
    folder = tmp_path_factory.mktemp("candidates")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--pre", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*install, *CANDIDATES], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the package index does not give {CANDIDATES[0]}: {done.stderr.strip().splitlines()[-1]}")
    return folder


def python(*words: str, cwd: Path, path: tuple[Path, ...]) -> str:
    """What a Python in which each warning is an error prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    done = subprocess.run(
        [sys.executable, "-W", "error", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_hydra_1_4_composes_everything_and_trains_to_the_same_numbers(candidates: Path, tmp_path: Path) -> None:
    composed, metrics = [], []
    for name, path in (("installed", ()), ("candidates", (candidates,))):
        folder = tmp_path / name
        folder.mkdir()
        version = python("-c", "import hydra; print(hydra.__version__)", cwd=folder, path=path)
        assert version.startswith("1.4") or name == "installed"
        composed.append(python("-c", COMPOSE_EVERYTHING, cwd=folder, path=path))
        (folder / "mine.py").write_text("import torch\n\ndef model():\n    return torch.nn.Linear(1, 1)\n")
        assert python("-c", FOREIGN, cwd=folder, path=path) == "Linear\n"
        python("-m", "vitexp", "epochs=3", "logger=none", "quiet=true", cwd=folder, path=path)
        metrics.append((folder / "outputs" / "last" / "metrics.csv").read_text())
    assert composed[0] == composed[1]
    assert metrics[0] == metrics[1]
    assert len(metrics[0].splitlines()) > 3
