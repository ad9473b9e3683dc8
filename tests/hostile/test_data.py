"""Data sets made to harm: COCO and YOLO annotations, image trees, class names and the files behind all of them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hostile.folders import some
from tests.hostile.judge import judge

RED = "\x1b[31mowned\x07"
SECRET = "the-content-of-a-file-elsewhere"
DETECT = ["model=detr_nano", "data=coco_folder", "data.root=set", "data.num_workers=0"]
CLASSIFY = ["data=folder", "data.root=set", "data.num_workers=0", "data.image_size=8"]
SPLITS = ("train", "val", "test")
QUICK = ["epochs=1", "bs=2", "logger=none", "quiet=true"]


def picture(file: Path, size: tuple[int, int] = (16, 16)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(file)


def coco(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A set of four images with an object each, its annotations changed."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 16, "width": 16} for i in range(4)]
    box = {"category_id": 1, "bbox": [2, 2, 8, 8], "area": 64, "iscrowd": 0}
    boxes = [{"id": i, "image_id": i, **box} for i in range(4)]
    content: dict[str, Any] = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "leaf"}]}
    for split in ("train", "val"):
        for image in images:
            picture(root / split / str(image["file_name"]))
    changed = change(content)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / "annotations" / f"{split}.json").write_text(json.dumps(changed if changed is not None else content))


def first(part: str, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part][0].update(values)


COCO: dict[str, Callable[[dict[str, Any]], object]] = {
    "a name above the folder": first("images", file_name="../../beside.png"),
    "an absolute name": first("images", file_name="/etc/hostname"),
    "a name of dots": first("images", file_name=".."),
    "an empty name": first("images", file_name=""),
    "a rude name": first("images", file_name=RED),
    "a name with a zero byte": first("images", file_name="a\0b.png"),
    "a name without end": first("images", file_name="x" * 100_000),
    "a name that is a list": first("images", file_name=["a"]),
    "a name that is no UTF-8": first("images", file_name="\udcff.png"),
    "no name": lambda content: content["images"][0].pop("file_name"),
    "an id that is text": first("images", id="one"),
    "an id of a hundred bits": first("images", id=2**100),
    "an id that is not finite": first("images", id=float("inf")),
    "one id twice": first("images", id=1),
    "a height of zero": first("images", height=0),
    "a height without end": first("images", height=10**18),
    "a height that is not a number": first("images", height=float("nan")),
    "an image that is a list": lambda content: content["images"].insert(0, [1]),
    "images that are a mapping": lambda content: content.update(images={"a": 1}),
    "no images": lambda content: content.update(images=[]),
    "a box of text": first("annotations", bbox="box"),
    "a box of five": first("annotations", bbox=[1, 2, 3, 4, 5]),
    "a box of lists": first("annotations", bbox=[[1], 2, 3, 4]),
    "a box that is not finite": first("annotations", bbox=[1, 2, float("nan"), float("inf")]),
    "a box without end": first("annotations", bbox=[0, 0, 1e308, 1e308]),
    "no box": lambda content: content["annotations"][0].pop("bbox"),
    "an area that is text": first("annotations", area="large"),
    "a crowd that is text": first("annotations", iscrowd="many"),
    "a category that is not there": first("annotations", category_id=77),
    "a category that is a list": first("annotations", category_id=[1]),
    "a category of a hundred bits": first("annotations", category_id=2**100),
    "an annotation that is null": lambda content: content["annotations"].insert(0, None),
    "a category with a rude name": first("categories", name=RED),
    "a category whose name is a list": first("categories", name=["x"]),
    "no category": lambda content: content.update(categories=[]),
    "a thousand categories of one name": lambda content: content.update(
        categories=[{"id": i, "name": "leaf"} for i in range(1000)]
    ),
    "a list": lambda content: [content],
    "a number": lambda content: 3,
}


@pytest.mark.parametrize("kind", some(COCO, 8))
def test_coco(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    picture(tmp_path / "beside.png")
    coco(folder / "set", COCO[kind])
    judge(["data", "check", *DETECT, "quiet=true"], folder=folder, canaries=["owned\x07"])


def yolo(root: Path, *, names: str = "names: [leaf]\n", label: bytes = b"0 0.5 0.5 0.4 0.4\n") -> None:
    for split in ("train", "val"):
        for number in range(3):
            picture(root / "images" / split / f"{number}.png")
            file = root / "labels" / split / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(label)
    (root / "data.yaml").write_bytes(names.encode("utf-8", "surrogateescape"))


YOLO: dict[str, dict[str, Any]] = {
    "names with aliases of aliases": {"names": "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n"},
    "names nested deeply": {"names": "names: " + "[" * 50_000},
    "names that are Python": {"names": "names: !!python/object/apply:os.system ['touch ../x']\n"},
    "names that are a number": {"names": "names: 3\n"},
    "names of mixed keys": {"names": "names: {0: a, b: c}\n"},
    "names that are no UTF-8": {"names": "names: [\udcff]\n"},
    "rude names": {"names": json.dumps({"names": [RED]})},
    "no names": {"names": ""},
    "a word": {"names": "word"},
    "a number of a million digits": {"names": "names: [" + "9" * 1_000_000 + "]\n"},
    "a label of text": {"label": b"leaf 0.5 0.5 0.4 0.4\n"},
    "a label of another class": {"label": b"9 0.5 0.5 0.4 0.4\n"},
    "a label that is not finite": {"label": b"0 nan inf 1e999 0.4\n"},
    "a label of a polygon": {"label": b"0 0.1 0.1 0.2 0.2 0.3 0.3\n"},
    "a label that is no UTF-8": {"label": b"\xff\xfe\n"},
    "a rude label": {"label": b"0 \x1b[31mowned\x07 1 1 1\n"},
    "a label of zero bytes": {"label": b"\0" * 4096},
    "a label of a huge class": {"label": b"9" * 5000 + b" 0.5 0.5 0.4 0.4\n"},
}


@pytest.mark.parametrize("kind", some(YOLO, 8))
def test_yolo(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    yolo(folder / "set", **YOLO[kind])
    judge(["data", "check", *DETECT, "quiet=true"], folder=folder, canaries=["owned\x07"])


def tree(root: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            for number in range(3):
                picture(root / split / name / f"{number}.png")


def replace(file: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / file).unlink(missing_ok=True)
        make(root / file)

    return change


def holes(file: Path) -> None:
    """8 GiB that take no room on the disk."""
    with file.open("wb") as opened:
        opened.truncate(2**33)


def rude(root: Path) -> None:
    picture(root / "train" / "cat" / f"{RED}.png")
    (root / "train" / "cat" / f"{RED}2.png").write_bytes(b"no image")


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


TREES: dict[str, Callable[[Path], object]] = {
    "a pipe": replace("train/cat/0.png", os.mkfifo),
    "a device": replace("train/cat/0.png", link_to("/dev/zero")),
    "a terminal": replace("train/cat/0.png", link_to("/dev/tty")),
    "a link to itself": replace("train/cat/0.png", link_to("0.png")),
    "a link to nothing": replace("train/cat/0.png", link_to("absent.png")),
    "a folder": replace("train/cat/0.png", Path.mkdir),
    "an empty file": replace("train/cat/0.png", Path.touch),
    "text": replace("train/cat/0.png", lambda file: file.write_text(SECRET)),
    "a page of Postscript": replace("train/cat/0.png", lambda file: file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")),
    "a file of holes": replace("train/cat/0.png", holes),
    "a rude name": rude,
    "a class that is a link elsewhere": lambda root: (root / "train" / "fox").symlink_to("/etc"),
    "a class that links to itself": lambda root: (root / "train" / "fox").symlink_to("."),
    "a rude class": lambda root: [picture(root / split / RED / "0.png") for split in SPLITS],
    "a class of no UTF-8": lambda root: [
        picture(root / split / "\udcff" / "0.png") for split in ("train", "val", "test")
    ],
    "a class without images": lambda root: (root / "train" / "fox").mkdir(),
    "a split that is a file": lambda root: [os.rename(root / "val", root / "old"), (root / "val").touch()],
    "nothing": lambda root: [os.rename(root / split, root / f".{split}") for split in SPLITS],
}


@pytest.mark.parametrize("verb", [["data", "check"], pytest.param([], marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", some(TREES, 8))
def test_a_tree_of_images(kind: str, verb: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "work"
    tree(folder / "set")
    TREES[kind](folder / "set")
    words = [*verb, *CLASSIFY, "quiet=true"] if verb else [*CLASSIFY, *QUICK, "model.depth=1"]
    judge(words, folder=folder, canaries=["owned\x07", SECRET])


ROOTS: dict[str, Callable[[Path], str]] = {
    "a link to itself": lambda folder: [(folder / "set").symlink_to("set"), "set"][1],
    "a pipe": lambda folder: [os.mkfifo(folder / "set"), "set"][1],
    "a file": lambda folder: [(folder / "set").touch(), "set"][1],
    "a device": lambda folder: "/dev/zero",
    "no UTF-8": lambda folder: "'\udcff'",
    "rude": lambda folder: f"'{RED}'",
    "without end": lambda folder: "x" * 5000,
}


@pytest.mark.parametrize("data", ["folder", "cifar100", "cifar10", "coco_folder", "imagenet"])
@pytest.mark.parametrize("kind", some(ROOTS, 8))
def test_a_root_that_is_none(kind: str, data: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    words = [f"data={data}", f"data.root={ROOTS[kind](folder)}", "quiet=true"]
    judge(["data", "check", *words, *(["model=detr_nano"] if data == "coco_folder" else [])], folder=folder)


@pytest.mark.parametrize("names", [None, b"\xff\xfe", b"", b"\x1b[31mowned\x07 " * 100, b"x" * 10**6])
def test_the_class_names_of_cifar(names: bytes | None, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    place = folder / "set" / "cifar-100-binary"
    place.mkdir(parents=True)
    for part in ("train", "test"):
        (place / f"{part}.bin").write_bytes(bytes(3074) * 20)
    if names is not None:
        (place / "fine_label_names.txt").write_bytes(names)
    judge(["data", "check", "data=cifar100", "data.root=set"], folder=folder, canaries=["owned\x07"])
