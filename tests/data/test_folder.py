"""Image folders: which split is what, which folders are classes, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vitexp.data.base import ImageData
from vitexp.data.file.scan import class_folders, scan
from vitexp.errors import ConfigError, DataError

Make = Callable[..., ImageData]
Write = Callable[..., Path]


def paths(module: ImageData, split: str) -> set[str]:
    source = module.source(split)
    return {source.path(position) for position in range(len(source))}  # type: ignore[union-attr]


@pytest.fixture
def open_folder(data_module: Make) -> Callable[..., ImageData]:
    def build(root: Path, *overrides: str) -> ImageData:
        return data_module("data=folder", f"data.root={root}", "data.num_workers=0", "data.batch_size=4", *overrides)

    return build


@pytest.mark.parametrize(
    ("splits", "train", "val", "test"),
    [
        (("train", "val", "test"), {"train"}, {"val"}, {"test"}),
        (("train", "valid", "test"), {"train"}, {"valid"}, {"test"}),
        (("train", "test"), {"train"}, {"train"}, {"test"}),
        (("train", "val"), {"train"}, {"train"}, {"val"}),
        (("train",), {"train"}, {"train"}, {"train"}),
    ],
)
def test_what_is_there_decides_the_splits(
    splits: tuple[str, ...], train: set[str], val: set[str], test: set[str], image_folder: Write, open_folder: Make
) -> None:
    for split in splits:
        root = image_folder(split, {"cat": 20, "dog": 10})
    module = open_folder(root)
    for split, expected in (("train", train), ("val", val), ("test", test)):
        assert {Path(path).relative_to(root).parts[0] for path in paths(module, split)} == expected
    found = [paths(module, split) for split in ("train", "val", "test")]
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert not found[1] & found[2]
    assert module.train_size + module.val_size + module.test_size == 30 * len(splits)
    assert module.num_classes == 2
    assert module.class_names == ["cat", "dog"]


def test_without_a_split_both_are_held_out_stratified_and_fixed(image_folder: Write, open_folder: Make) -> None:
    root = image_folder(".", {"cat": 20, "dog": 10})
    module = open_folder(root)
    for split, expected in (("train", [16, 8]), ("val", [2, 1]), ("test", [2, 1])):
        assert torch.bincount(module.source(split).labels).tolist() == expected
        assert paths(module, split) == paths(open_folder(root, "seed=9"), split)


def test_evaluation_folders_alone_can_be_tested_but_not_trained_on(image_folder: Write, open_folder: Make) -> None:
    module = open_folder(image_folder("val", {"cat": 3, "dog": 3}))
    module.prepare_data()
    module.setup("fit")
    assert (module.train_size, module.test_size) == (0, 6)
    assert len(list(module.test_dataloader())) == 2
    with pytest.raises(DataError, match="has no train images; put them in"):
        module.train_dataloader()


def test_labels_come_from_the_training_classes(image_folder: Write, open_folder: Make) -> None:
    image_folder("train", {"ant": 4, "bee": 4, "cat": 4})
    root = image_folder("val", {"ant": 2, "cat": 2, "dog": 2})
    with pytest.raises(DataError, match=r"val does not have .* missing bee; extra dog"):
        open_folder(root).setup("test")


def test_hidden_folders_and_other_files_do_not_count(image_folder: Write, caplog: pytest.LogCaptureFixture) -> None:
    root = image_folder(".", {"cat": 2, "dog": 2})
    for name in (".cache", "__MACOSX"):
        (root / name).mkdir()
    (root / "notes.txt").write_text("")
    (root / "cat" / "notes.txt").write_text("")
    (root / "cat" / ".hidden.jpg").write_text("")
    (root / "cat" / "more").mkdir()
    (root / "cat" / "000.jpg").rename(root / "cat" / "more" / "000.JPG")
    assert class_folders(root) == ["cat", "dog"]
    source = scan(root, ["cat", "dog"])
    assert [Path(source.path(i)).name for i in range(4)] == ["001.jpg", "000.JPG", "000.jpg", "001.jpg"]
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert "1 files are no images" in caplog.text


def test_names_may_hold_any_character(image_folder: Write, open_folder: Make) -> None:
    root = image_folder("train", {"고양이": 6, "$(touch x) =": 6})
    module = open_folder(root, "data.test_fraction=0.2")
    images, labels = next(iter(module.train_dataloader()))
    assert module.class_names == ["$(touch x) =", "고양이"]
    assert images.shape == (4, 3, 224, 224)
    assert set(labels.tolist()) <= {0, 1}


def test_a_class_folder_must_not_lead_elsewhere(image_folder: Write, tmp_path: Path) -> None:
    root = image_folder(".", {"cat": 1})
    (root / "etc").symlink_to(tmp_path.parent)
    with pytest.raises(DataError, match="a link that leads out"):
        class_folders(root)


def test_a_class_without_images_is_an_error(image_folder: Write, open_folder: Make) -> None:
    root = image_folder("train", {"cat": 3})
    (root / "train" / "dog").mkdir()
    with pytest.raises(DataError, match="dog holds no image file"):
        open_folder(root).setup("fit")


def test_a_folder_must_be_named_exist_and_hold_classes(tmp_path: Path, data_module: Make, open_folder: Make) -> None:
    with pytest.raises(ConfigError, match=r"give data\.root=FOLDER"):
        data_module("data=folder")
    with pytest.raises(DataError, match="is no folder"):
        open_folder(tmp_path / "nowhere").prepare_data()
    with pytest.raises(DataError, match="holds no class folders"):
        open_folder(tmp_path).prepare_data()


def test_another_number_of_classes_is_an_error(image_folder: Write, open_folder: Make) -> None:
    with pytest.raises(DataError, match=r"data\.num_classes=5, but the data has 2 classes"):
        open_folder(image_folder("train", {"cat": 3, "dog": 3}), "data.num_classes=5").setup("fit")
