"""The images of a folder and their classes: one subfolder a class, whose sorted names are the labels."""

import logging
import os
from pathlib import Path

import torch

from vitexp.data.file.image import SUFFIXES
from vitexp.data.source import FileSource, file_source
from vitexp.errors import DataError

_log = logging.getLogger(__name__)


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders, sorted; hidden ones and `__MACOSX` do not count.

    Raises:
        DataError: there is none, or one is a link that leads elsewhere.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; it must hold one folder of images for each class: data.root=FOLDER")
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()]
    for entry in found:
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{entry.path} is a link that leads out of {folder}; replace it by a folder, or remove it")
    names = sorted(entry.name for entry in found)
    if not names:
        raise DataError(f"{folder} holds no class folders; it must hold one folder of images for each class")
    return names


def scan(folder: Path, classes: list[str]) -> FileSource:
    """The image files of each class, sorted by class and name.

    Labels are positions in `classes`, those of the training images; a folder that is not among them, or that is
    missing, would shift labels, so it is an error.

    Raises:
        DataError: other class folders than `classes`, or one without images.
    """
    require_classes(folder, class_folders(folder), classes)
    names: list[str] = []
    counts: list[int] = []
    skipped = 0
    for name in classes:
        found, others = _images(folder, name)
        if not found:
            raise DataError(f"{folder / name} holds no image file; add images, or remove the class everywhere")
        names += found
        counts.append(len(found))
        skipped += others
    if skipped:
        _log.warning("%s: %d files are no images by their suffix, and are left out", folder, skipped)
    labels = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(counts))
    return file_source(folder, names, labels)


def require_classes(folder: Path, found: list[str], expected: list[str]) -> None:
    """Raise DataError, with the names, unless two sorted lists of classes are equal."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise DataError(
            f"{folder} does not have the classes of the training images: missing {_some(missing)}; "
            f"extra {_some(extra)}; make both sets of folders the same"
        )


def _images(folder: Path, name: str) -> tuple[list[str], int]:
    """Image files below a class folder, relative to `folder` and sorted, and how many other files there are."""
    found: list[str] = []
    others = 0
    for parent, folders, files in os.walk(folder / name):
        folders[:] = sorted(sub for sub in folders if not sub.startswith("."))
        prefix = os.path.relpath(parent, folder)
        for file in files:
            if file.startswith("."):
                continue
            if os.path.splitext(file)[1].lower() in SUFFIXES:
                found.append(os.path.join(prefix, file))
            else:
                others += 1
    return sorted(found), others


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
