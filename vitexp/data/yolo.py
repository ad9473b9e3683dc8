"""YOLO's annotations: one text file an image, a line an object, `class cx cy width height` as shares of the image.

The class names are in `data.yaml` (`names:`, a list or numbers to names) or in `classes.txt`, one a line. An image
without a file has no objects. Labels of segments (more than five numbers) are refused.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml
from PIL import Image

from vitexp.data.box.source import BoxReader, BoxSource
from vitexp.data.file.image import FORMATS, SUFFIXES
from vitexp.errors import DataError
from vitexp.files.plain import open_plain, read_plain

_MAX_BYTES, _MAX_BRACKETS = 16 * 2**20, 1000
_NAMES = ("data.yaml", "dataset.yaml", "classes.txt")


def yolo_names(root: Path) -> list[str]:
    """The class names of a YOLO folder. Raises DataError."""
    file = next((root / name for name in _NAMES if (root / name).is_file()), None)
    if file is None:
        raise DataError(f"{root} has YOLO labels but no {' or '.join(_NAMES)}; write one with the names of the classes")
    text = read_plain(file, max_bytes=_MAX_BYTES, error=DataError, advice="write one name a line, or names: [cat, dog]")
    if file.suffix == ".txt":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        if "*" in text or _nesting(text) > _MAX_BRACKETS:
            raise DataError(f"{file} has aliases or lists in lists; write names: [cat, dog]")
        names = yaml.safe_load(text)["names"]
        ordered = [names[key] for key in sorted(names)] if isinstance(names, dict) else list(names)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} has no names of classes ({error}); write names: [cat, dog]") from error
    return [str(name) for name in ordered]


def yolo_source(images: Path, labels: Path, *, num_classes: int) -> BoxSource:
    """The images below `images` with the objects of the files of the same names below `labels`."""
    reader = BoxReader(labels, images, num_classes)
    for number, name in enumerate(sorted(_image_files(images))):
        width, height = _size(images / name)
        position = reader.image(name, height=height, width=width, number=number)
        file = (labels / name).with_suffix(".txt")
        lines = _lines(file)
        for line, text in enumerate(lines, start=1):
            if text.strip():
                _add(reader, position, text.split(), f"{file}:{line}")
    return reader.finish()


def _lines(file: Path) -> list[str]:
    """The lines of a label file; none for an image without one."""
    try:
        text = read_plain(file, max_bytes=_MAX_BYTES, error=DataError, advice="write `class cx cy width height` a line")
    except FileNotFoundError:
        return []
    return text.splitlines()


def _nesting(text: str) -> int:
    return text.count("[") + text.count("{")


def _add(reader: BoxReader, position: int, words: Sequence[str], where: str) -> None:
    try:
        label = int(words[0])
        shares = [float(word) for word in words[1:]]
    except ValueError:
        label, shares = -1, []
    if len(shares) != 4:
        raise DataError(f"{where} is not `class cx cy width height` with shares of the image: {' '.join(words)[:60]}")
    if not 0 <= label < reader.num_classes:
        raise DataError(f"{where} has class {label}; there are names for 0 to {reader.num_classes - 1}; add its name")
    height, width = reader.sizes[position]
    left, top = (shares[0] - shares[2] / 2) * width, (shares[1] - shares[3] / 2) * height
    right, bottom = left + shares[2] * width, top + shares[3] * height
    area = shares[2] * width * shares[3] * height
    reader.box(position, [left, top, right, bottom], label=label, area=area, crowd=False)


def _image_files(folder: Path) -> list[str]:
    found = []
    for parent, _, files in os.walk(folder):
        prefix = os.path.relpath(parent, folder)
        found += [os.path.normpath(os.path.join(prefix, f)) for f in files if Path(f).suffix.lower() in SUFFIXES]
    return found


def _size(path: Path) -> tuple[int, int]:
    """(width, height), from the file's header."""
    try:
        with open_plain(path) as file, Image.open(file, formats=FORMATS) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable image ({error}); replace or remove it") from error
