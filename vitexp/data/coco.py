"""COCO (Lin et al. 2014): the 2017 splits under the official category ids, so that published weights fit.

Labels are the ids 1 to 90 themselves, of which 80 are in use: 91 classes with the unused 0. val2017 is test, as
everybody reports it; val is held out of train2017. With val2017 only, the set can be tested and not trained on.
"""

from pathlib import Path
from typing import Any

from vitexp.data.augment.settings import Augment
from vitexp.data.box.augment import BoxAugment
from vitexp.data.box.data import BoxData
from vitexp.data.coco_json import category_names, coco_source, read_json
from vitexp.data.file.fetch import data_root
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.errors import DataError


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
        self.root = Path(root).expanduser() if root is not None else data_root(None) / "coco"
        self.val_fraction = val_fraction

    def prepare_data(self) -> None:
        """Look at the classes, so that a wrong folder is found before anything is built."""
        _ = self.class_names

    def read_class_names(self) -> list[str]:
        """A name for each id; `unused 12` for those that COCO skips."""
        for split in ("val", "train"):
            if (file := self._file(split)).is_file():
                names = category_names(read_json(file), file)
                break
        else:
            raise DataError(
                f"COCO is not in {self.root}: there is no {self._file('val')}; unpack annotations_trainval2017.zip, "
                "train2017.zip and val2017.zip of cocodataset.org there, or give data.root=FOLDER"
            )
        count = self.num_classes
        beyond = [number for number in names if not 0 <= number < count]
        if beyond:
            raise DataError(
                f"{file} has category ids up to {max(beyond)}, but data=coco takes COCO's own, below {count}; for "
                f"others use data=coco_folder data.root={self.root}"
            )
        return [names.get(number, f"unused {number}") for number in range(count)]

    def read(self, part: str) -> dict[str, Source]:
        """See the module's first lines."""
        found: dict[str, Any] = {}
        if part == "test":
            found["test"] = self._source("val")
        elif self._file("train").is_file():
            found["train"], found["val"] = self._source("train").hold_out(self.val_fraction)
        return found

    def absent(self, split: str) -> str:
        """Say which file would hold it."""
        return f"{self.root} has no {split} images; they need {self._file('train')} and {self.root / 'train2017'}"

    def _source(self, split: str) -> Any:
        file = self._file(split)
        content = read_json(file)
        labels = {number: number for number in category_names(content, file)}
        return coco_source(content, file, self.root / f"{split}2017", labels=labels, num_classes=self.num_classes)

    def _file(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}2017.json"
