"""Names that come with the data are text: to the shell, the terminal, the page, the pictures and the tables."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.cli import main
from vitexp.run.folder import find

ESCAPE = "\x1b[31mred\x1b[0m"
NAMES = ["$(touch x)", f"`touch x`;{ESCAPE}", "<script>alert(1)</script>", "a\nb [bold]c[/bold] $\\frac{1}{0}$"]
FOLDER = ["data=folder", "data.root=images", "size=8", "bs=8", "epochs=1", "logger=none", "data.num_workers=0"]


def test_classes_and_files_named_to_do_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    # A slash cannot be in a name: the closing tag of the second script stands without it.
    names = [name.replace("/", "\u2215") for name in NAMES]
    for name in names:
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}{ESCAPE}$(touch y).png")
    assert main([*FOLDER, "quiet=false"]) == 0
    assert main(["evaluate", "run=last"]) == 0
    assert main(["predict", "run=last", "image=images/*/0*.png"]) == 0
    assert main(["list", "runs"]) == 0
    said = capsys.readouterr()
    assert "$(touch x)" in said.out, "the names are printed, so what follows can fail"
    assert "\x1b" not in said.out + said.err
    assert not {"x", "y"} & {path.name for path in tmp_path.rglob("*")}
    run = find("last", tmp_path / "outputs").path
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "\x1b" not in page
