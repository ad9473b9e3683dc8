"""The objects of COCO as photographs of their own: each box is cut out and classified, at its own size and aspect.

Layout, splits and ids are those of `data=coco`. Crowds and boxes below `min_side` pixels are left out; all objects of a
photograph are in one split.
"""

from pathlib import Path

import torch

from vitexp.data.augment.settings import Augment
from vitexp.data.base import ImageData
from vitexp.data.box.source import BoxSource
from vitexp.data.coco_json import Coco2017
from vitexp.data.file.fetch import data_root
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.data.source import CropSource


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
        folder = Path(root).expanduser() if root is not None else data_root(None) / "coco"
        self.files, self.min_side = Coco2017(folder, num_classes, val_fraction), min_side

    def read_class_names(self) -> list[str]:
        """The names of the official ids."""
        return self.files.class_names()

    def read(self, part: str) -> dict[str, Source]:
        """The objects of the photographs of each split."""
        return {split: self._crops(source) for split, source in self.files.read(part).items()}

    def absent(self, split: str) -> str:
        return self.files.absent(split)

    def _crops(self, source: BoxSource) -> CropSource:
        counts = source.starts[1:] - source.starts[:-1]
        image = torch.repeat_interleave(torch.arange(len(source)), counts)
        edges = torch.cat([source.boxes[:, :2].floor(), source.boxes[:, 2:].ceil()], dim=1).long()
        kept = ~source.crowds & ((edges[:, 2:] - edges[:, :2]).amin(dim=1) >= self.min_side)
        keys = source.keys[image] * 100_000 + torch.arange(len(image)) - source.starts[image]  # of the object, lasting
        return CropSource(
            source.root, source.names[image[kept].numpy()], source.labels[kept], keys[kept], boxes=edges[kept]
        )
