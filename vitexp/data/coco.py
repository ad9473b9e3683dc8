"""COCO (Lin et al. 2014): the 2017 splits under the official category ids, so that published weights fit.

Labels are the ids 1 to 90 themselves, of which 80 are in use: 91 classes with the unused 0. val2017 is test, as
everybody reports it; val is held out of train2017. With val2017 only, the set can be tested and not trained on.
"""

from collections.abc import Mapping
from pathlib import Path

from vitexp.data.augment.settings import Augment
from vitexp.data.box.augment import BoxAugment
from vitexp.data.box.data import BoxData
from vitexp.data.coco_json import Coco2017
from vitexp.data.file.fetch import data_root
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels


class Coco(BoxData):
    """The folders train2017/ and val2017/ with annotations/instances_*.json; val_fraction of train is val."""

    def __init__(
        self,
        *,
        root: str | None,
        val_fraction: float,
        num_classes: int,
        longest: float,
        square: bool,
        pixels: Pixels,
        batches: Batches,
        augment: BoxAugment | Augment,
    ) -> None:
        super().__init__(
            num_classes=num_classes, longest=longest, square=square, pixels=pixels, batches=batches, augment=augment
        )
        folder = Path(root).expanduser() if root is not None else data_root(None) / "coco"
        self.files = Coco2017(folder, num_classes, val_fraction)

    def read_class_names(self) -> list[str]:
        """The names of the official ids."""
        return self.files.class_names()

    def read(self, part: str) -> Mapping[str, Source]:
        """The splits of a part, as the module's docstring says."""
        return self.files.read(part)

    def absent(self, split: str) -> str:
        return self.files.absent(split)
