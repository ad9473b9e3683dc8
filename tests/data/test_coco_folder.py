"""Anyone's layouts: where annotations may be, splits that are missing, YOLO labels, categories."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vitexp.errors import ConfigError, DataError

SIZE = (40, 20)


def photographs(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", SIZE, (number * 20, 0, 0)).save(folder / name)
    return names


def write_json(file: Path, names: list[str], categories: Any = ((4, "dog"), (2, "cat"))) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": n, "file_name": name, "width": 40, "height": 20} for n, name in enumerate(names)]
    boxes = [{"image_id": n, "category_id": categories[0][0], "bbox": [4, 2, 8, 4]} for n in range(len(names))]
    listed = [{"id": number, "name": name} for number, name in categories]
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": listed}))


@pytest.fixture
def folder_data(data_module) -> Any:
    def build(root: Path, *overrides: str) -> Any:
        options = ["data.batch_size=1", "data.num_workers=0", "data.image_size=32"]
        return data_module(
            "model=detr_r50", "data=coco_folder", "augment=none", f"data.root={root}", *options, *overrides
        )

    return build


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_{}.json", "{}"),
        ("annotations/{}.json", "images/{}"),
        ("annotations/instances_{}2017.json", "{}2017"),
        ("{}/_annotations.coco.json", "{}"),
    ],
)
def test_layouts(file: str, images: str, tmp_path: Path, folder_data) -> None:
    for split, count in (("train", 4), ("val", 2)):
        write_json(tmp_path / file.format(split), photographs(tmp_path / images.format(split), count))
    data = folder_data(tmp_path, "data.val_fraction=0.25")
    assert data.class_names == ["cat", "dog"]  # by category id
    assert (data.train_size, data.val_size, data.test_size) == (3, 1, 2)
    assert data.source("train").labels.tolist() == [1, 1, 1]
    image, (target,) = next(iter(data.test_dataloader()))
    assert image.shape == (1, 3, 26, 52)
    torch.testing.assert_close(target["boxes_cxcywh"], torch.tensor([[0.2, 0.2, 0.2, 0.2]]))


def test_one_split_is_cut_in_three(tmp_path: Path, folder_data) -> None:
    write_json(tmp_path / "annotations" / "train.json", photographs(tmp_path / "train", 10))
    data = folder_data(tmp_path, "data.val_fraction=0.2", "data.test_fraction=0.3")
    assert (data.train_size, data.val_size, data.test_size) == (5, 2, 3)
    parts = [set(data.source(split).ids.tolist()) for split in ("train", "val", "test")]
    assert set.union(*parts) == set(range(10))


def test_three_splits_stay(tmp_path: Path, folder_data) -> None:
    for split, count in (("train", 3), ("valid", 1), ("test", 2)):
        write_json(tmp_path / split / "_annotations.coco.json", photographs(tmp_path / split, count))
    data = folder_data(tmp_path)
    assert (data.train_size, data.val_size, data.test_size) == (3, 1, 2)


@pytest.mark.parametrize(("labels", "images"), [("labels/{}", "images/{}"), ("{}/labels", "{}/images")])
@pytest.mark.parametrize("names", ["data.yaml", "classes.txt"])
def test_yolo_labels(names: str, labels: str, images: str, tmp_path: Path, folder_data) -> None:
    for split in ("train", "val"):
        photographs(tmp_path / images.format(split), 2)
        folder = tmp_path / labels.format(split)
        folder.mkdir(parents=True)
        (folder / "0.txt").write_text("1 0.5 0.5 0.5 0.5\n\n0 0.9 0.5 0.4 1.0\n")
    text = "names:\n  0: cat\n  1: dog\n" if names == "data.yaml" else "cat\ndog\n"
    (tmp_path / names).write_text(text)
    source = folder_data(tmp_path).source("test")
    torch.testing.assert_close(source.boxes, torch.tensor([[10.0, 5.0, 30.0, 15.0], [28.0, 0.0, 40.0, 20.0]]))
    assert source.labels.tolist() == [1, 0]
    assert source.starts.tolist() == [0, 2, 2]
    assert folder_data(tmp_path).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.5", r"0.txt:1 has class 2; there are names for 0 to 1"),
        ("1 0.5 0.5 0.5", r"0.txt:1 is not `class cx cy width height`"),
        ("1 0.1 0.1 0.2 0.2 0.3 0.3", r"0.txt:1 is not"),
        ("dog 0.5 0.5 0.5 0.5", r"0.txt:1 is not"),
    ],
)
def test_bad_yolo_lines_are_named(line: str, message: str, tmp_path: Path, folder_data) -> None:
    photographs(tmp_path / "images" / "train", 1)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "0.txt").write_text(line)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=message):
        folder_data(tmp_path, "data.val_fraction=0.0", "data.test_fraction=0.0").source("train")


def test_errors_say_what_is_missing(tmp_path: Path, folder_data, data_module) -> None:
    with pytest.raises(DataError, match="no annotations of a known layout"):
        folder_data(tmp_path).prepare_data()
    with pytest.raises(ConfigError, match=r"give data\.root=FOLDER"):
        data_module("model=detr_r50", "data=coco_folder", "augment=none")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    photographs(tmp_path / "images" / "train", 1)
    with pytest.raises(DataError, match=r"no data.yaml"):
        folder_data(tmp_path).prepare_data()
    write_json(tmp_path / "train" / "annotations.json", photographs(tmp_path / "train", 1))
    write_json(tmp_path / "val" / "annotations.json", photographs(tmp_path / "val", 1), [(1, "bird")])
    data = folder_data(tmp_path)
    with pytest.raises(DataError, match="has categories that training has not: bird"):
        data.source("test")
    with pytest.raises(DataError, match=r"data\.num_classes=5, but the data has 2"):
        folder_data(tmp_path, "data.num_classes=5").prepare_data()
