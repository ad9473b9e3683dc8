"""The wheel in an environment of its own, in an empty folder: it trains, lists and composes without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.commands import COMPOSE_EVERYTHING
from vitexp.config.schema import GROUPS

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; no variable of this process leads it to the checkout or to data."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VITEXP_DATA")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def uv(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The builder, once the index gives what it builds with."""
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("uv builds the wheel, and is not installed")
    probe = [found, "pip", "install", "--quiet", "--target", str(tmp_path_factory.mktemp("probe")), "hatchling>=1.27"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the package index does not give hatchling: {done.stderr.strip().splitlines()[-1]}")
    return found


@pytest.fixture(scope="module")
def built(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(uv, "build", "--quiet", "--out-dir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(uv: str, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel, and sees the dependencies of this one without its links."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = built.glob("*.whl")
    run(uv, "pip", "install", "--quiet", "--no-deps", "--python", folder / "bin/python", wheel, cwd=folder)
    return folder / "bin"


def test_the_archives_hold_what_they_need_and_nothing_else(built: Path) -> None:
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as archive:
        source = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    packed = {Path(name) for name in ZipFile(wheel).namelist()}
    configs = {file.relative_to(ROOT) for file in (ROOT / "conf").rglob("*.yaml")}
    code = {file.relative_to(ROOT) for file in (ROOT / "vitexp").rglob("*") if file.is_file() and file.suffix != ".pyc"}
    assert configs | code | {Path("LICENSE"), Path("README.md"), Path("CITATION.cff")} <= source
    assert {Path("vitexp") / config for config in configs} | code <= packed
    assert {path.parts[0] for path in packed} == {"vitexp", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}
    assert any(path.name == "LICENSE" for path in packed)


def test_the_wheel_trains_lists_and_composes_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    home = run(installed / "python", "-c", "import vitexp; print(vitexp.__file__)", cwd=tmp_path)
    assert Path(home.strip()).is_relative_to(installed.parent)
    options = [file.stem for group in GROUPS for file in (ROOT / "conf" / group).glob("*.yaml")]
    composed = run(installed / "python", "-c", COMPOSE_EVERYTHING, cwd=tmp_path)
    assert composed.splitlines()[-1] == str(len(options))
    for what in ("models", "data", "attention", "regimes", "experiments"):
        assert run(installed / "vitexp", "list", what, cwd=tmp_path).strip()
    assert not list(tmp_path.iterdir())
    run(installed / "vitexp", "quiet=true", cwd=tmp_path)
    assert {path.name for path in (tmp_path / "outputs" / "last").iterdir()} >= {"metrics.csv", "report.html"}
