"""An inventory tells data sets apart, and says by which samples."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp.data import inventory
from vitexp.data.base import ImageData
from vitexp.data.inventory import differences, digests, of_files

Make = Callable[..., ImageData]


def files(count: int = 3) -> dict[str, torch.Tensor]:
    names = np.array([b"cat/%d.png" % number for number in range(count)])
    return {**of_files("/nowhere", names), "labels": torch.zeros(count, dtype=torch.int64)}


def without(columns: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    kept = [other for other in range(len(columns["names"])) if other != row]
    return {name: column[kept] for name, column in columns.items()}


def test_each_row_has_a_digest_of_its_own() -> None:
    rows = torch.randint(0, 256, (5000, 3, 5), dtype=torch.uint8)
    found = digests(rows)
    assert found.dtype == torch.int64
    assert len(found.unique()) == 5000
    assert torch.equal(found[10:20], digests(rows[10:20])), "of the row alone"
    for place in range(15):
        changed = rows[:1].clone()
        changed.view(-1)[place] ^= 1
        assert digests(changed) != found[0]
    assert len(digests(rows[:0])) == 0


def test_files_that_go_come_and_move_are_named() -> None:
    whole = files()
    assert differences({"train": whole}, {"train": files()}) == []
    assert differences({"train": whole}, {"train": without(whole, 1)}) == ["1 file fewer in train (cat/1.png)"]
    assert differences({"train": whole}, {"train": files(7)}) == [
        "4 files more in train (cat/3.png, cat/4.png, cat/5.png, ...)"
    ]
    one, other = {"train": without(whole, 0), "val": files(1)}, {"train": files(1), "val": without(whole, 0)}
    assert differences(one, other) == ["3 files in another split (cat/0.png, cat/1.png, cat/2.png)"]


@pytest.mark.parametrize(
    ("column", "said"),
    [("sizes", "of another size"), ("content", "with other pixels"), ("labels", "with another label")],
)
def test_a_change_of_a_file_is_told_by_its_kind(column: str, said: str) -> None:
    before = {**files(), "sizes": torch.tensor([5, 6, 7]), "content": torch.tensor([1, 2, 3])}
    after = {**before, column: before[column] + torch.tensor([0, 4, 0])}
    assert differences({"test": before}, {"test": after}) == [f"test: 1 file {said} (cat/1.png)"]
    assert (differences({"test": before}, {"test": after}, renamed=True) == []) == (column == "labels")


def test_a_size_that_was_not_looked_at_is_no_difference() -> None:
    before = {**files(), "sizes": torch.tensor([-1, 6, 7])}
    assert differences({"test": before}, {"test": {**before, "sizes": torch.tensor([5, 6, -1])}}) == []


def test_of_many_files_some_sizes_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "LOOKED_AT", 4)
    for number in range(10):
        (tmp_path / str(number)).write_text("x" * (number + 1))
    found = of_files(tmp_path, np.array([b"%d" % number for number in range(10)]))
    assert (found["sizes"] >= 0).sum() == 4
    assert "content" not in found
    again = of_files(tmp_path, np.array([b"%d" % number for number in range(9, -1, -1)]))
    assert torch.equal(found["sizes"], again["sizes"].flip(0)), "chosen by name"


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert of_files(tmp_path, np.array([b"pipe"]))["sizes"].tolist() == [-1]


def test_pixels_in_memory_count(data_module: Make) -> None:
    first, second = data_module("data=fake").inventory(), data_module("data=fake", "data.pattern=1").inventory()
    assert list(first) == ["train", "val", "test"]
    assert differences(first, data_module("data=fake", "seed=3").inventory()) == []
    assert differences(first, second)[0] == "train: 256 images with other pixels"
    assert differences(first, data_module("data=fake", "data.sizes=[256,64,65]").inventory()) == [
        "1 image more in test"
    ]
    assert list(data_module("data=fake").inventory("test")) == ["test"]


def test_a_folder_moves_and_is_the_same(data_module: Make, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = image_folder("train", {"cat": 6, "dog": 5})
    before = data_module("data=folder", f"data.root={root}").inventory()
    shutil.copytree(root, tmp_path / "elsewhere")
    moved = data_module("data=folder", f"data.root={tmp_path / 'elsewhere'}")
    assert differences(before, moved.inventory()) == []
    file = tmp_path / "elsewhere/train/cat/002.jpg"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1  # of the same length
    file.write_bytes(content)
    (said,) = differences(before, data_module("data=folder", f"data.root={tmp_path / 'elsewhere'}").inventory())
    assert said.endswith(": 1 file with other pixels (cat/002.jpg)")


def test_boxes_count(data_module: Make, tmp_path: Path) -> None:
    annotations = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 40, "height": 30} for number in range(3)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 20, 20], "area": 400, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 8, "bbox": [5, 2, 20, 20], "area": 400, "iscrowd": 0},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
    }
    for folder in ("train", "annotations"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / "train" / f"{number}.png")

    def look() -> dict[str, dict[str, torch.Tensor]]:
        (tmp_path / "annotations/train.json").write_text(json.dumps(annotations))
        words = (
            "model=detr_nano",
            "data=coco_folder",
            "augment=none",
            "data.val_fraction=0.0",
            "data.test_fraction=0.0",
        )
        return data_module(*words, f"data.root={tmp_path}").inventory()

    before = look()
    assert set(before["train"]) == {"names", "sizes", "content", "objects"}
    first, second = annotations["annotations"]
    first["category_id"], second["category_id"] = 8, 7  # swapped
    assert differences(before, look()) == ["train: 1 file with other objects (1.png)"]
