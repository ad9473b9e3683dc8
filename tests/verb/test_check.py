"""`vitexp data check` names what is wrong with a data set; `data.on_corrupt=skip` trains without it, exactly."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.cli import main
from vitexp.data.file.inspect import inspect
from vitexp.run.folder import find

SMALL = ["data=folder", "data.root=set", "size=16", "model=vit_nano", "bs=4", "epochs=2", "logger=none", "quiet=true"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes in train and test, one file cut short in each split, as the working directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("cat", "$(touch x)"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02d}.jpg")
    for split in ("train", "test"):
        file = tmp_path / "set" / split / "cat" / "01.jpg"
        file.write_bytes(file.read_bytes()[:200])
    return tmp_path


def test_a_check_counts_and_lists_and_exits_3(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(place / "set/train/cat/00.jpg", place / "set/test/cat/copy.jpg")
    assert main(["data", "check", "data=folder", "data.root=set", "file=found.json"]) == 3
    said = capsys.readouterr()
    assert "2 files cannot be read" in said.err
    assert "train/cat/01.jpg" in said.err
    assert "data.on_corrupt=skip" in said.err
    assert "the same image twice" in said.out.replace("\n", " ")
    found = json.loads((place / "found.json").read_text())
    assert found["test"]["classes"] == {"cat": 5, "$(touch x)": 4}
    assert len(found["twice"]) == 1
    assert not (place / "x").exists()
    assert not (place / "outputs").exists()


def test_a_whole_set_passes(place: Path) -> None:
    for split in ("train", "test"):
        (place / "set" / split / "cat" / "01.jpg").unlink()
    assert main(["check", "data=folder", "data.root=set", "quiet=true"]) == 0
    assert main(["data", "check", "quiet=true"]) == 0, "digits, in memory"


def test_a_damaged_file_ends_a_run_or_is_left_out_of_all_of_it(place: Path, capsys) -> None:
    assert main([*SMALL, "data.num_workers=0"]) == 3
    message = capsys.readouterr().err
    assert "01.jpg" in message
    assert "vitexp data check" in message
    assert main([*SMALL, "data.num_workers=0", "data.on_corrupt=skip"]) == 0
    assert find("last", place / "outputs").record["metrics"]["test/top1"] >= 0
    assert "are left out" in (find("last", place / "outputs").path / "log.txt").read_text()
    assert main([*SMALL, "data.on_corrupt=ignore"]) == 2


def test_nothing_that_can_be_read_is_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (place / "set" / "train").glob("*/*.jpg"):
        file.write_bytes(b"")
    assert main([*SMALL, "data.on_corrupt=skip"]) == 3
    assert "none of" in capsys.readouterr().err


def odd(path: Path, max_pixels: int = 50_000_000) -> tuple[str, ...]:
    found = inspect(str(path), channels=3, max_pixels=max_pixels)
    assert found.damage is None
    return found.odd


def test_each_unusual_file_is_named(tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 400, dtype=np.uint8).reshape(20, 20)
    colour = Image.fromarray(np.stack([grey] * 3, -1))
    frames = [Image.new("RGB", (20, 20), (value, 0, 0)) for value in (0, 200)]
    cases = {
        "16 bits a channel": ("a.png", Image.fromarray(grey.astype(np.uint16) * 257), {}),
        "CMYK": ("a.jpg", colour.convert("CMYK"), {}),
        "palette": ("b.png", colour.convert("P"), {}),
        "transparent": ("c.png", colour.convert("RGBA"), {}),
        "grey": ("d.png", Image.fromarray(grey), {}),
        "animated": ("e.gif", frames[0], {"save_all": True, "append_images": frames[1:]}),
        "smaller than 8 pixels": ("f.png", colour.resize((3, 20)), {}),
        "longer than 10 times its width": ("g.png", colour.resize((500, 20)), {}),
        "suffix of another format": ("h.png", colour, {"format": "JPEG"}),
    }
    for name, (file, image, options) in cases.items():
        image.save(tmp_path / file, **options)
        assert name in odd(tmp_path / file), name
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(tmp_path / "i.jpg", exif=exif)
    assert odd(tmp_path / "i.jpg") == ("turned by EXIF",)
    colour.save(tmp_path / "j.jpg")
    assert odd(tmp_path / "j.jpg") == ()


def test_a_bomb_is_damage_and_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    found = inspect(str(tmp_path / "bomb.png"), channels=3, max_pixels=50_000_000)
    assert "81000000" in (found.damage or "").replace(",", "") or "9000 x 9000" in (found.damage or "")
    assert inspect(str(tmp_path / "absent.png"), channels=3, max_pixels=1).damage
