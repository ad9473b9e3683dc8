"""What vitexp takes from others: versions without known holes, and no code that a repository or a plugin brings."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "vitexp").rglob("*.py"))
# The first versions without the advisories that reliability asks about; two of Lightning's stole credentials.
FLOORS = {"torch": (2, 11), "pytorch-lightning": (2, 6, 6), "hydra-core": (1, 3, 8), "pillow": (12, 3)}
# Each imports or runs what somebody else names.
ELSEWHERE = {"torch.hub", "entry_points", "trust_remote_code=True", "pkg_resources", "allow_pickle=True", "shell=True"}


def pins() -> list[str]:
    """Each requirement of the lock with its hashes, in one line."""
    return (ROOT / "requirements.lock").read_text().replace("\\\n", "").splitlines()


def locked() -> dict[str, str]:
    names = [re.split(r"[;\s]", pin)[0].partition("==") for pin in pins()]
    return {name.lower(): version for name, _, version in names}


@pytest.mark.parametrize("name", FLOORS)
def test_the_lock_has_no_version_with_a_known_hole(name: str) -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", locked()[name])[: len(FLOORS[name])])
    assert version >= FLOORS[name]


def test_the_lock_pins_everything_and_names_no_host() -> None:
    assert all(re.fullmatch(r"[\w.!+]+", version) for version in locked().values())
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_every_pin_has_the_hashes_of_its_files_and_the_installation_asks_for_them() -> None:
    assert len(pins()) > 100
    for pin in pins():
        assert re.fullmatch(r"\S+==\S+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+", pin), pin
    assert "--require-hashes --requirement requirements.lock" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", FLOORS)
def test_an_installation_without_the_lock_has_the_floor_too(name: str) -> None:
    text = (ROOT / "pyproject.toml").read_text().lower()
    found = re.search(rf'"{name}>=([\d.]+)', text)
    assert found is not None
    assert tuple(int(part) for part in found.group(1).split(".")) >= FLOORS[name]


def said(source: str) -> set[str]:
    """Names, attributes, keywords and imports of a file of code."""
    nodes = list(ast.walk(ast.parse(source)))
    found = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute | ast.Name | ast.keyword)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
            found |= {name for alias in node.names for name in (alias.name, module + alias.name)}
    return found


def test_no_code_comes_from_elsewhere() -> None:
    """But from packages that the user has installed for vitexp, which one module finds."""
    for file in FILES:
        allowed = {"entry_points"} if file.name == "extensions.py" else set()
        assert said(file.read_text()) & ELSEWHERE == allowed, file


@pytest.mark.parametrize(
    "source",
    [
        "torch.hub.load('a', 'b')",
        "from torch import hub",
        "import torch.hub",
        "from importlib.metadata import entry_points",
        "AutoModel.from_pretrained('a', trust_remote_code=True)",
        "numpy.load(file, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "import pkg_resources",
    ],
)
def test_such_code_would_be_found(source: str) -> None:
    assert said(source) & ELSEWHERE
