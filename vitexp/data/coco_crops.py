"""The objects of COCO as photographs of their own: each box is cut out and classified, at its own size and aspect.

Layout, splits and ids are those of `data=coco`. Crowds and boxes below `min_side` pixels are left out; all objects of a
photograph are in one split.
"""

from pathlib import Path
from typing import Any

import torch

from vitexp.data.augment.settings import Augment
from vitexp.data.base import ImageData
from vitexp.data.box.source import BoxSource
from vitexp.data.coco_json import category_names, coco_source, read_json
from vitexp.data.file.fetch import data_root
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.data.source import CropSource
from vitexp.errors import DataError


class CocoCrops(ImageData):
    """The folders train2017/ and val2017/ with annotations/instances_*.json; val_fraction of train's images is val."""

    def __init__(
        self,
        *,
        root: str | None,
        val_fraction: float,
        min_side: int,
        num_classes: int,
        pixels: Pixels,
        batches: Batches,
        augment: Augment,
    ) -> None:
        super().__init__(num_classes=num_classes, pixels=pixels, batches=batches, augment=augment)
        self.root = Path(root).expanduser() if root is not None else data_root(None) / "coco"
        self.val_fraction, self.min_side = val_fraction, min_side

    def prepare_data(self) -> None:
        """Look at the classes, so that a wrong folder is found before anything is built."""
        _ = self.class_names

    def read_class_names(self) -> list[str]:
        """A name for each id; `unused 12` for those that COCO skips."""
        file = next((self._file(split) for split in ("val", "train") if self._file(split).is_file()), None)
        if file is None:
            raise DataError(
                f"COCO is not in {self.root}: there is no {self._file('val')}; unpack annotations_trainval2017.zip, "
                "train2017.zip and val2017.zip of cocodataset.org there, or give data.root=FOLDER"
            )
        names = category_names(read_json(file), file)
        return [names.get(number, f"unused {number}") for number in range(self.num_classes)]

    def read(self, part: str) -> dict[str, Source]:
        """Boxes of val2017 are test, those of train2017 train and val."""
        if part == "test":
            return {"test": self._crops(self._source("val"))} if self._file("val").is_file() else {}
        if not self._file("train").is_file():
            return {}
        train, val = self._source("train").hold_out(self.val_fraction)
        return {"train": self._crops(train), "val": self._crops(val)}

    def absent(self, split: str) -> str:
        """Say which file would hold it."""
        name = "val" if split == "test" else "train"
        return f"{self.root} has no {split} images; they need {self._file(name)} and {self.root / f'{name}2017'}"

    def _source(self, split: str) -> BoxSource:
        file = self._file(split)
        content: Any = read_json(file)
        labels = {number: number for number in category_names(content, file)}
        return coco_source(content, file, self.root / f"{split}2017", labels=labels, num_classes=self.num_classes)

    def _crops(self, source: BoxSource) -> CropSource:
        counts = source.starts[1:] - source.starts[:-1]
        image = torch.repeat_interleave(torch.arange(len(source)), counts)
        edges = torch.cat([source.boxes[:, :2].floor(), source.boxes[:, 2:].ceil()], dim=1).long()
        kept = ~source.crowds & ((edges[:, 2:] - edges[:, :2]).amin(dim=1) >= self.min_side)
        keys = source.keys[image] * 100_000 + torch.arange(len(image)) - source.starts[image]  # of the object, lasting
        return CropSource(
            source.root, source.names[image[kept].numpy()], source.labels[kept], keys[kept], boxes=edges[kept]
        )

    def _file(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}2017.json"
