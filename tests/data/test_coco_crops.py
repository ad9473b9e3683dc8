"""Objects of COCO as images: the right pixels under the right label, at their own size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp.errors import DataError

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
BOXES = [(0, [2.0, 3.0, 20.0, 18.0], 1), (0, [0.0, 0.0, 5.0, 30.0], 3), (1, [8.0, 16.0, 24.0, 40.0], 3)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two photographs of 48 x 40 and 32 x 64 pixels in each split, with a small box and a crowd among the objects."""
    (tmp_path / "annotations").mkdir()
    objects = [{"image_id": i, "bbox": box, "category_id": c, "iscrowd": 0, "id": i} for i, box, c in BOXES]
    objects.append({"image_id": 1, "bbox": [0, 0, 30, 30], "category_id": 1, "iscrowd": 1, "id": 9})
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        images = []
        for number, (width, height) in enumerate([(48, 40), (32, 64)]):
            pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{split}2017" / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        content = {"images": images, "annotations": objects, "categories": CATEGORIES}
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return tmp_path


def crops(data_module: Callable[..., Any], root: Path, *words: str) -> Any:
    small = ("data.batch_size=2", "data.num_workers=0", "data.image_size=32", "data.val_fraction=0.0")
    return data_module("data=coco_crops", f"data.root={root}", *small, *words)


def test_crowds_and_small_boxes_are_left_out(data_module: Callable[..., Any], root: Path) -> None:
    module = crops(data_module, root)
    source: Any = module.source("test")
    assert source.labels.tolist() == [1, 3]
    assert source.read_sizes(10_000).tolist() == [[18, 20], [40, 24]]
    assert len(crops(data_module, root, "data.min_side=4").source("train")) == 3
    assert module.class_names[:4] == ["unused 0", "person", "unused 2", "car"]


def test_pixels_are_those_of_the_box(data_module: Callable[..., Any], root: Path) -> None:
    module = crops(data_module, root)
    source: Any = module.source("test")
    whole = torch.from_numpy(np.array(Image.open(root / "val2017" / "1.png"))).permute(2, 0, 1)
    decoded = source.decode(1, module.pixels)
    assert torch.equal(decoded, whole[:, 16:56, 8:32])
    opened = np.array(source.open(1, module.pixels))
    assert torch.equal(torch.from_numpy(opened).permute(2, 0, 1), decoded)


def test_packed_at_native_size(data_module: Callable[..., Any], root: Path) -> None:
    words = ("model=navit_nano", "augment=none", "data.packing.native=true", "model.stem.patch_size=4")
    ((packed, labels),) = list(crops(data_module, root, *words).test_dataloader())
    assert sorted(labels.tolist()) == [1, 3]
    grids = {tuple(grid) for grid in packed.grids[packed.owner >= 0].tolist()}
    assert grids == {(4, 5), (10, 6)}  # 18 x 20 and 40 x 24 pixels in patches of 4


def test_squares_for_other_models(data_module: Callable[..., Any], root: Path) -> None:
    images, _ = next(iter(crops(data_module, root, "augment=basic").train_dataloader()))
    assert images.shape == (2, 3, 32, 32)


def test_absent(data_module: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"COCO is not in .*data\.root=FOLDER"):
        crops(data_module, tmp_path).prepare_data()
