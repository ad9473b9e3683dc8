"""COCO's annotation files: images, categories, and boxes as [left, top, width, height] in pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitexp import files as strict_json
from vitexp.data.box.source import BoxReader, BoxSource
from vitexp.errors import DataError

# COCO's own largest file has 448 MB, LVIS's 1.1 GB; parsing takes several times that.
MAX_BYTES = 4 * 2**30


def read_json(file: Path) -> dict[str, Any]:
    """The file's content, with `images`, `annotations` and `categories`. Raises DataError."""
    try:
        content: Any = strict_json.read_json(
            file, object, error=DataError, advice="fetch it again", max_bytes=MAX_BYTES
        )
    except FileNotFoundError:
        raise DataError(f"{file} is absent; it must hold COCO annotations: see data.root") from None
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(_get(content, key), list)]
    if missing:
        raise DataError(
            f"{file} has no list of {', '.join(missing)}; a COCO file has images, annotations and categories; use an "
            "instances file (image_info files have no annotations)"
        )
    found: dict[str, Any] = content
    return found


def category_names(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Category id -> name, by id. Raises DataError."""
    try:
        names = {int(item["id"]): str(item["name"]) for item in content["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: a category has no id or name ({error}); each needs both") from error
    if not names:
        raise DataError(f"{file} lists no categories; add them as {{'id': 1, 'name': 'cat'}}")
    return dict(sorted(names.items()))


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
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{file} is not in COCO's format ({reason}); it needs id, file_name, width, height of each "
            "image and image_id, category_id, bbox of each annotation"
        ) from error
    return reader.finish()


def _add(reader: BoxReader, item: Any, position: Mapping[int, int], labels: Mapping[int, int], file: Path) -> None:
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


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None
