"""COCO's annotation files: images, categories, and boxes as [left, top, width, height] in pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitexp.data.box.source import BoxReader, BoxSource
from vitexp.errors import DataError
from vitexp.files import strict_json

# COCO's own largest file has 448 MB, LVIS's 1.1 GB; parsing takes several times that.
MAX_BYTES = 4 * 2**30


def read_json(file: Path) -> dict[str, Any]:
    """The file's content, with `images`, `annotations` and `categories`. Raises DataError."""
    try:
        content = strict_json.read_json(file, object, error=DataError, advice="fetch it again", max_bytes=MAX_BYTES)
    except FileNotFoundError:
        raise DataError(f"{file} is absent; it must hold COCO annotations: see data.root") from None
    found: dict[str, Any] = content if isinstance(content, dict) else {}
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(found.get(key), list)]
    if missing:
        raise DataError(
            f"{file} has no list of {', '.join(missing)}; a COCO file has images, annotations and categories; use an "
            "instances file (image_info files have no annotations)"
        )
    return found


def category_names(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Category id -> name, by id. Raises DataError."""
    try:
        names = {int(item["id"]): str(item["name"]) for item in content["categories"]}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: a category has no id or name ({error}); each needs both") from error
    if not names:
        raise DataError(f"{file} lists no categories; add them as {{'id': 1, 'name': 'cat'}}")
    return dict(sorted(names.items()))


@dataclass(frozen=True)
class Coco2017:
    """The official layout, train2017/ and val2017/ with annotations/instances_*.json, and ids that are the labels."""

    root: Path
    num_classes: int
    val_fraction: float

    def class_names(self) -> list[str]:
        """A name for each id; `unused 12` for those that COCO skips. Raises DataError."""
        file = next((self._file(split) for split in ("val", "train") if self._file(split).is_file()), None)
        if file is None:
            raise DataError(
                f"COCO is not in {self.root}: there is no {self._file('val')}; unpack annotations_trainval2017.zip, "
                "train2017.zip and val2017.zip of cocodataset.org there, or give data.root=FOLDER"
            )
        names = category_names(read_json(file), file)
        beyond = [number for number in names if not 0 <= number < self.num_classes]
        if beyond:
            raise DataError(
                f"{file} has category ids up to {max(beyond)}, but data=coco takes COCO's own, below "
                f"{self.num_classes}; for others use data=coco_folder data.root={self.root}"
            )
        return [names.get(number, f"unused {number}") for number in range(self.num_classes)]

    def read(self, part: str) -> dict[str, BoxSource]:
        """The splits of a part: val2017 is test, `val_fraction` of train2017 val. Absent ones are left out."""
        split = "val" if part == "test" else "train"
        if not self._file(split).is_file():
            return {}
        file = self._file(split)
        content = read_json(file)
        labels = {number: number for number in category_names(content, file)}
        images = self.root / f"{split}2017"
        whole = coco_source(content, file, images, labels=labels, num_classes=self.num_classes)
        if part == "test":
            return {"test": whole}
        train, val = whole.hold_out(self.val_fraction)
        return {"train": train, "val": val}

    def absent(self, split: str) -> str:
        """A sentence that names the file which would hold a split."""
        name = "val" if split == "test" else "train"
        return f"{self.root} has no {split} images; they need {self._file(name)} and {self.root / f'{name}2017'}"

    def _file(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}2017.json"


def coco_source(
    content: Mapping[str, Any], file: Path, images: Path, *, labels: Mapping[int, int], num_classes: int
) -> BoxSource:
    """The images of an annotation file with their objects.

    Args:
        content: from `read_json`.
        file: its name, for messages.
        images: the folder that file names are relative to.
        labels: category id -> label.
        num_classes: labels are below it.
    """
    reader = BoxReader(file, images, num_classes)
    position = {}
    try:
        for item in content["images"]:
            number = int(item["id"])
            size = {"height": int(item["height"]), "width": int(item["width"])}
            position[number] = reader.image(str(item["file_name"]), number=number, **size)
        for item in content["annotations"]:
            _add(reader, item, position, labels, file)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{file} is not in COCO's format ({reason}); it needs id, file_name, width, height of each "
            "image and image_id, category_id, bbox of each annotation"
        ) from error
    return reader.finish()


def _add(
    reader: BoxReader, item: dict[str, Any], position: Mapping[int, int], labels: Mapping[int, int], file: Path
) -> None:
    category, image = int(item["category_id"]), int(item["image_id"])
    if category not in labels:
        raise DataError(
            f"{file}: annotation {item.get('id', '?')} of image {image} has category {category}, which is not among "
            f"the {len(labels)} listed ({', '.join(map(str, list(labels)[:10]))}, ...); correct it or list it"
        )
    if image not in position:
        return reader.skip("of an image that is not listed")
    box = item["bbox"]
    if not isinstance(box, list) or len(box) != 4:
        return reader.skip("not four finite numbers")
    left, top, width, height = (float(value) for value in box)
    return reader.box(
        position[image],
        [left, top, left + width, top + height],
        label=labels[category],
        area=float(item.get("area", width * height)),
        crowd=bool(item.get("iscrowd", 0)),
    )
