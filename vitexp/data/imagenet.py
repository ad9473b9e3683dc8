"""ImageNet-1k (Russakovsky et al. 2015), with its original or its reassessed labels ("ReaL", Beyer et al. 2020).

`data.root` holds `train/<wnid>/` and `val/<wnid>/`, or only `val/`, which can be tested and not trained on; without
`data.root` it is `imagenet` in the folder of data sets. Labels are positions in the sorted wnids. The public
validation images, on which everybody reports, are test; val is `val_fraction` of train, stratified and fixed.

`val/` may be flat too, as it is distributed, with `data.val_labels` naming a text file of lines `<file> <wnid>` or
`<file> <label 0..999>`, or the `LOC_val_solution.csv` of the Kaggle copy. `data.real_labels` names `real.json`: 50,000
lists of labels, by the number in the file name. Images without a label there are left out, so 46,837 are scored, and
labels become bool (B, K): any of them is right.
"""

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from vitexp.data.augment.settings import Augment
from vitexp.data.base import ImageData
from vitexp.data.file.fetch import data_root
from vitexp.data.file.scan import class_folders, scan
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.data.source import FileSource, file_source
from vitexp.data.split import hold_out
from vitexp.errors import DataError
from vitexp.files.plain import read_plain
from vitexp.files.strict_json import read_json

_LABEL_BYTES = 256 * 2**20
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


class ImageNet(ImageData):
    """ImageNet in the ImageFolder layout, or with flat validation images."""

    def __init__(
        self,
        *,
        root: str | None,
        num_classes: int,
        val_fraction: float,
        val_labels: str | None,
        real_labels: str | None,
        pixels: Pixels,
        batches: Batches,
        augment: Augment,
    ) -> None:
        super().__init__(num_classes=num_classes, pixels=pixels, batches=batches, augment=augment)
        self.root = data_root(root) if root is not None else data_root(None) / "imagenet"
        self.val_fraction = val_fraction
        self.val_labels = Path(val_labels).expanduser() if val_labels else None
        self.real_labels = Path(real_labels).expanduser() if real_labels else None

    def prepare_data(self) -> None:
        """ImageNet cannot be fetched without an account; say so when it is absent."""
        if not (self.root / "val").is_dir() and not (self.root / "train").is_dir():
            raise DataError(
                f"no ImageNet in {self.root}: neither train/ nor val/ is there; get it from https://image-net.org and "
                f"unpack it there, or name its folder: data.root=FOLDER"
            )

    def read_class_names(self) -> list[str]:
        """The sorted wnids, of the training folders if they are there; plain numbers if nothing names them."""
        if (self.root / "train").is_dir():
            return class_folders(self.root / "train")
        if self.val_labels is None:
            return class_folders(self.root / "val")
        wnids = sorted({label for label in _read_labels(self.val_labels).values() if not label.isdigit()})
        return wnids or [str(label) for label in range(self.num_classes)]

    def read(self, part: str) -> dict[str, Source]:
        """Train with val held out of it, or the validation images as test."""
        if part == "test":
            return {"test": self._test()} if (self.root / "val").is_dir() else {}
        if not (self.root / "train").is_dir():
            return {}
        whole = scan(self.root / "train", self.class_names)
        train, val = hold_out(whole.labels, self.val_fraction)
        return {"train": whole.subset(train), "val": whole.subset(val)}

    def absent(self, split: str) -> str:
        """Say which folder is missing."""
        folder = self.root / ("val" if split == "test" else "train")
        what = "can only be evaluated" if split != "test" else "cannot be tested"
        return f"{folder} is absent, so this ImageNet {what}; put its class folders there, or name another: data.root="

    def _test(self) -> FileSource:
        folder = self.root / "val"
        source = scan(folder, self.class_names) if self.val_labels is None else self._flat(folder)
        return _real(source, self.real_labels, len(self.class_names)) if self.real_labels else source

    def _flat(self, folder: Path) -> FileSource:
        assert self.val_labels is not None
        files = {Path(name).stem: name for name in sorted(path.name for path in folder.iterdir() if path.is_file())}
        index = {name: label for label, name in enumerate(self.class_names)}
        names, labels = [], []
        for stem, text in sorted(_read_labels(self.val_labels).items()):
            label = int(text) if text.isdigit() else index.get(text, -1)
            if stem not in files or not 0 <= label < len(index):
                what = f"{folder} has no such file" if stem not in files else f"{text} is no class"
                raise DataError(f"{self.val_labels}: {stem} {text}: {what}; use the label file of these images")
            names.append(files[stem])
            labels.append(label)
        return file_source(folder, names, torch.tensor(labels))


def _read_labels(file: Path) -> dict[str, str]:
    """File name without suffix -> its label as written: a wnid or a number.

    The list of bare numbers in the development kit is refused: its numbers are not positions in the sorted wnids.
    """
    if not file.is_file():
        raise DataError(f"data.val_labels={file} is no file; give a text file of lines '<file> <wnid>'")
    labels = {}
    text = read_plain(file, max_bytes=_LABEL_BYTES, error=DataError, advice="give lines '<file> <wnid>'")
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.replace(",", " ").split()
        if not fields or fields[0] == "ImageId":
            continue
        if len(fields) < 2:
            raise DataError(f"{file}, line {number}: {line!r} is not '<file> <wnid>'; use a file of such lines")
        labels[Path(fields[0]).stem] = fields[1]
    if not labels:
        raise DataError(f"{file} holds no labels; it needs a line '<file> <wnid>' for each image")
    return labels


def _real(source: FileSource, file: Path, num_classes: int) -> FileSource:
    """The images that ReaL labels, with the set of their labels as bool (N, K)."""
    lists = _read_real(file, num_classes)
    kept, rows = [], []
    for position in range(len(source)):
        match = _NUMBER.search(os.path.basename(source.path(position)))
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(lists):
            raise DataError(
                f"{source.path(position)}: ReaL labels go by the number in ILSVRC2012_val_00000001.JPEG to "
                f"{len(lists):08d}, which this name lacks; use the original names, or data.real_labels=null"
            )
        if lists[number - 1]:
            kept.append(position)
            rows.append(_many_hot(lists[number - 1], num_classes))
    if not kept:
        raise DataError(f"{file} labels none of the {len(source)} images in {source.root}; use data.real_labels=null")
    chosen = source.subset(torch.tensor(kept))
    return FileSource(chosen.root, chosen.names, torch.stack(rows), chosen.keys)


def _many_hot(labels: list[int], num_classes: int) -> Tensor:
    row = torch.zeros(num_classes, dtype=torch.bool)
    row[labels] = True
    return row


def _read_real(file: Path, num_classes: int) -> list[list[int]]:
    advice = "give the real.json of ReaL as data.real_labels="
    try:
        lists = read_json(file, object, error=DataError, advice=advice)
    except FileNotFoundError:
        raise DataError(f"data.real_labels={file} is absent; {advice}") from None
    if not isinstance(lists, list) or not all(
        isinstance(labels, list) and all(isinstance(label, int) and 0 <= label < num_classes for label in labels)
        for labels in lists
    ):
        raise DataError(f"data.real_labels={file} is no list of lists of labels 0..{num_classes - 1}; give real.json")
    return lists
