"""ImageNet: its layouts, and the labels of ReaL."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vitexp.data.base import ImageData
from vitexp.errors import DataError

Make = Callable[..., ImageData]
Write = Callable[..., Path]
SMALL = ("data=imagenet", "data.num_classes=3", "data.image_size=16", "data.batch_size=2", "data.num_workers=0")
WNIDS = ["n01", "n02", "n03"]


def open_set(data_module: Make, root: Path, *overrides: str) -> ImageData:
    return data_module(*SMALL, f"data.root={root}", *overrides)


@pytest.fixture
def flat(image_folder: Write) -> Path:
    """Six validation images as distributed: in one folder, under their numbers."""
    root = image_folder("val", {"all": 6})
    for number, file in enumerate(sorted((root / "val/all").iterdir()), start=1):
        file.rename(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    (root / "val/all").rmdir()
    return root


def test_train_and_val_folders(image_folder: Write, data_module: Make) -> None:
    image_folder("train", dict.fromkeys(WNIDS, 10))
    root = image_folder("val", dict.fromkeys(WNIDS, 2))
    module = open_set(data_module, root, "data.val_fraction=0.2")
    assert (module.train_size, module.val_size, module.test_size) == (24, 6, 6)
    assert module.class_names == WNIDS
    held = module.source("val")
    assert all("/train/" in held.path(i) for i in range(6)), "choices are made on training images"  # type: ignore[union-attr]


def test_validation_images_alone(image_folder: Write, data_module: Make) -> None:
    module = open_set(data_module, image_folder("val", dict.fromkeys(WNIDS, 1)))
    module.prepare_data()
    module.setup("fit")
    assert torch.cat([labels for _, labels in module.test_dataloader()]).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="train is absent, so this ImageNet can only be evaluated"):
        module.train_dataloader()


@pytest.mark.parametrize(
    "lines",
    [
        "".join(f"ILSVRC2012_val_{i:08d}.JPEG {WNIDS[i % 3]}\n" for i in range(1, 7)),
        "".join(f"ILSVRC2012_val_{i:08d}.JPEG {i % 3}\n" for i in range(1, 7)),
        "ImageId,PredictionString\n"
        + "".join(f"ILSVRC2012_val_{i:08d},{WNIDS[i % 3]} 1 2 3 4 \n" for i in range(1, 7)),
    ],
    ids=["wnids", "numbers", "kaggle"],
)
def test_flat_validation_images(lines: str, flat: Path, data_module: Make) -> None:
    (flat / "labels.txt").write_text(lines)
    module = open_set(data_module, flat, f"data.val_labels={flat / 'labels.txt'}")
    assert module.source("test").labels.tolist() == [1, 2, 0, 1, 2, 0]
    assert len(module.class_names) == 3


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("490\n361\n", "line 1: '490' is not"),
        ("ILSVRC2012_val_00000009.JPEG 0\n", "no such file"),
        ("ILSVRC2012_val_00000001.JPEG 3\n", "3 is no class"),
        ("", "holds no labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(lines: str, said: str, flat: Path, data_module: Make) -> None:
    (flat / "labels.txt").write_text(lines)
    with pytest.raises(DataError, match=said):
        open_set(data_module, flat, f"data.val_labels={flat / 'labels.txt'}").setup("test")


def test_reassessed_labels_are_sets_and_images_without_any_are_left_out(flat: Path, data_module: Make) -> None:
    (flat / "labels.txt").write_text("".join(f"ILSVRC2012_val_{i:08d} 0\n" for i in range(1, 7)))
    (flat / "real.json").write_text(json.dumps([[1], [], [0, 2], [2], [], [1, 2]]))
    files = (f"data.val_labels={flat / 'labels.txt'}", f"data.real_labels={flat / 'real.json'}")
    module = open_set(data_module, flat, *files)
    assert module.test_size == 4
    labels = torch.cat([labels for _, labels in module.test_dataloader()])
    assert labels.dtype == torch.bool
    assert labels.int().tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 1], [0, 1, 1]]


@pytest.mark.parametrize(
    ("content", "said"),
    [("[[1]]", "ILSVRC2012_val_00000001"), ("[[3]]", "no list of lists"), ("{", "cannot be read"), ("{}", "no list")],
)
def test_reassessed_labels_that_do_not_fit_are_refused(content: str, said: str, flat: Path, data_module: Make) -> None:
    (flat / "labels.txt").write_text("".join(f"ILSVRC2012_val_{i:08d} 0\n" for i in range(1, 7)))
    (flat / "real.json").write_text(content)
    files = (f"data.val_labels={flat / 'labels.txt'}", f"data.real_labels={flat / 'real.json'}")
    with pytest.raises(DataError, match=said):
        open_set(data_module, flat, *files).setup("test")


def test_the_published_reassessment_scores_46837_images() -> None:
    from importlib.resources import files

    from vitexp.data.imagenet import _read_real

    lists = _read_real(Path(str(files("timm.data._info").joinpath("imagenet_real_labels.json"))), 1000)
    assert len(lists) == 50_000
    assert sum(bool(labels) for labels in lists) == 46_837


def test_absent_it_says_where_to_put_it(tmp_path: Path, data_module: Make) -> None:
    with pytest.raises(DataError, match=r"no ImageNet in .*data\.root=FOLDER"):
        open_set(data_module, tmp_path).prepare_data()


def test_the_sample_has_one_photograph_a_class(data_root: Callable[[str], Path], data_module: Make) -> None:
    root = data_root("imagenet-sample") / "imagenet-sample"
    module = data_module("data=imagenet", f"data.root={root}")
    assert module.source("test").labels.tolist() == list(range(1000))
    assert module.class_names[0] == "n01440764"
