"""COCO's layout on synthetic and real files: ids, splits, batches, what bad annotations become."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp.data.coco import Coco
from vitexp.errors import ConfigError, DataError

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}]


def annotation(image: int, box: Any, category: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": 7, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}


@pytest.fixture
def coco_set(tmp_path: Path) -> Callable[..., Path]:
    """Write COCO's layout: `coco_set(val=[annotation(...)], train=[...], sizes=[(w, h), ...])` -> the root."""

    def write(*, sizes: Any = ((40, 30), (20, 60)), **splits: list[dict[str, Any]]) -> Path:
        random = np.random.default_rng(0)
        for split, annotations in splits.items():
            folder = tmp_path / f"{split}2017"
            folder.mkdir(exist_ok=True)
            images = []
            for number, (width, height) in enumerate(sizes):
                pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:012d}.png")
                name = f"{number:012d}.png"
                images.append({"id": number, "file_name": name, "width": width, "height": height})
            content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
            (tmp_path / "annotations").mkdir(exist_ok=True)
            (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
        return tmp_path

    return write


@pytest.fixture
def coco(data_module: Callable[..., Any]) -> Callable[..., Coco]:
    def build(root: Path, *overrides: str) -> Coco:
        options = ["data.batch_size=2", "data.num_workers=0", "data.image_size=32", "data.val_fraction=0.0"]
        return data_module("model=detr_r50", "data=coco", "augment=none", f"data.root={root}", *options, *overrides)

    return build


def test_labels_are_the_official_ids(coco_set, coco) -> None:
    data = coco(coco_set(val=[annotation(0, [4, 3, 8, 6], 90)]))
    assert data.num_classes == len(data.class_names) == 91
    assert (data.class_names[3], data.class_names[90], data.class_names[12]) == ("car", "toothbrush", "unused 12")
    assert data.source("test").labels.tolist() == [90]


def test_a_batch_is_padded_and_says_where(coco_set, coco) -> None:
    root = coco_set(val=[annotation(0, [4, 3, 8, 6], 3, area=30.0), annotation(0, [0, 0, 40, 30], iscrowd=1)])
    images, targets = next(iter(coco(root).test_dataloader()))
    # Short side 32, the other at most round(1.66625 * 32) = 53: 40 x 30 -> 42 x 32, 20 x 60 -> 18 x 54 cut to 53.
    assert [target["size"].tolist() for target in targets] == [[32, 42], [54, 18]]
    assert images.shape == (2, 3, 54, 42)
    assert float(images[0, :, 32:].abs().max()) == 0
    assert float(images[1, :, :, 18:].abs().max()) == 0
    first, second = targets
    assert first["labels"].tolist() == [3]
    torch.testing.assert_close(first["boxes_cxcywh"], torch.tensor([[0.2, 0.2, 0.2, 0.2]]))
    assert first["original_size"].tolist() == [30, 40]
    truth = first["truth"]
    assert (truth["iscrowd"].tolist(), truth["area"].tolist()) == ([0, 1], [30.0, 1200.0])
    assert truth["boxes_xyxy"].tolist() == [[4.0, 3.0, 12.0, 9.0], [0.0, 0.0, 40.0, 30.0]]
    assert second["labels"].shape == (0,)
    assert second["boxes_cxcywh"].shape == (0, 4)


def test_square_batches(coco_set, coco) -> None:
    data = coco(coco_set(val=[]), "data.square=true", "data.longest=1.0")
    images, targets = next(iter(data.test_dataloader()))
    assert images.shape == (2, 3, 32, 32)
    assert [max(target["size"].tolist()) for target in targets] == [32, 32]
    with pytest.raises(ConfigError, match=r"longest=1\.0"):
        coco(coco_set(val=[]), "data.square=true")


BAD = [
    annotation(0, [50, 3, 8, 6]),  # outside
    annotation(0, [4, 3, 0, 6]),  # no area
    annotation(0, [4, 3, float("nan"), 6]),
    annotation(0, [4, 3, 6]),
    annotation(99, [4, 3, 8, 6]),  # no such image
]


def test_bad_boxes_are_left_out_and_counted(coco_set, coco, caplog) -> None:
    root = coco_set(val=[*BAD, annotation(1, [10, 50, 30, 30])])
    with caplog.at_level(logging.WARNING):
        source = coco(root).source("test")
    assert source.boxes.tolist() == [[10.0, 50.0, 20.0, 60.0]]  # cut at the edge
    (record,) = caplog.records
    text = record.getMessage()
    assert "5 boxes are left out" in text
    for reason in ("1 outside its image", "1 no area", "2 not four finite numbers", "1 of an image that is not listed"):
        assert reason in text


def test_what_cannot_be_guessed_is_one_error(coco_set, coco) -> None:
    with pytest.raises(DataError, match="annotation 7 of image 0 has category 5, which is not among the 3 listed"):
        coco(coco_set(val=[annotation(0, [4, 3, 8, 6], 5)])).source("test")
    root = coco_set(val=[])
    (root / "val2017" / "000000000001.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images .* are not in .*000000000001.png"):
        coco(root).source("test")
    (root / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        coco(root).prepare_data()
    with pytest.raises(DataError, match="COCO is not in"):
        coco(root / "nothing").prepare_data()


def test_evaluation_only_without_training_images(coco_set, coco) -> None:
    data = coco(coco_set(val=[]))
    assert (data.test_size, data.train_size) == (2, 0)
    with pytest.raises(DataError, match="has no train images"):
        data.train_dataloader()


def test_a_damaged_image_is_named(coco_set, coco) -> None:
    root = coco_set(val=[])
    (root / "val2017" / "000000000001.png").write_bytes(b"not a png")
    with pytest.raises(DataError, match=r"000000000001\.png"):
        list(coco(root).test_dataloader())


def test_training_drops_crowds_and_keeps_empty_images(coco_set, coco) -> None:
    root = coco_set(train=[annotation(0, [4, 3, 8, 6]), annotation(0, [1, 1, 9, 9], iscrowd=1)], val=[])
    data = coco(root)
    _, targets = next(iter(data.train_dataloader()))
    assert sorted(len(target["labels"]) for target in targets) == [0, 1]
    assert all("truth" not in target for target in targets)


def test_batches_do_not_depend_on_workers(coco_set, data_module) -> None:
    root = coco_set(train=[annotation(0, [4, 3, 30, 20]), annotation(1, [2, 2, 15, 50])], val=[])
    options = [f"data.root={root}", "data.batch_size=2", "data.image_size=64", "data.val_fraction=0.0"]

    def batches(workers: int) -> list[Any]:
        data = data_module("model=detr_r50", "data=coco", *options, f"data.num_workers={workers}")
        loader = data.train_dataloader()
        found = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            found += list(loader)
        return found

    one, two = batches(0), batches(1)
    for (images, targets), (others, more) in zip(one, two, strict=True):
        assert torch.equal(images, others)
        assert all(torch.equal(a["boxes_cxcywh"], b["boxes_cxcywh"]) for a, b in zip(targets, more, strict=True))
    assert one[0][0].shape != one[1][0].shape or not torch.equal(one[0][0], one[1][0])


def test_held_out_images_are_fixed(data_root, coco) -> None:
    root = data_root("coco128") / "coco128"
    data = coco(root, "data.val_fraction=0.1")
    assert (data.train_size, data.val_size, data.test_size) == (115, 13, 128)
    again = coco(root, "data.val_fraction=0.1", "seed=5")
    assert again.source("val").ids.tolist() == data.source("val").ids.tolist()
    assert not set(data.source("val").ids.tolist()) & set(data.source("train").ids.tolist())


def test_real_files(data_root, coco) -> None:
    data = coco(data_root("coco128") / "coco128", "data.image_size=64")
    source = data.source("test")
    assert (len(source), len(source.boxes)) == (128, 898)
    images, targets = next(iter(data.test_dataloader()))
    assert min(images.shape[2:]) >= 64
    assert all(len(target["labels"]) == len(target["truth"]["labels"]) for target in targets)
