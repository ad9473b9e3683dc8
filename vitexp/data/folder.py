"""Any folder of images with one subfolder a class, with a split (`train/`, `val/`, `test/`) or without one.

| what is there | train | val | test |
|---|---|---|---|
| train, val, test | train | val | test |
| train, test | train without val_fraction | held out of train | test |
| train, val | train without val_fraction | held out of train | val |
| train | what is left of it | val_fraction of it | test_fraction of it |
| class folders only | what is left of them | val_fraction of them | test_fraction of them |
| val and/or test, no train | none | val if there is a test too | test, else val |

`validation` and `valid` are taken for `val`. With one evaluation folder only, it is test, so that choices are not made
on what the final score is taken on. What is held out is stratified and fixed.
"""

from pathlib import Path

from vitexp.data.augment.settings import Augment
from vitexp.data.base import ImageData
from vitexp.data.file.fetch import data_root
from vitexp.data.file.scan import class_folders, scan
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.data.source import FileSource
from vitexp.data.split import hold_out
from vitexp.errors import ConfigError

_SPLITS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


class Folder(ImageData):
    """An image folder. `num_classes` may be None: it is then the number of class folders."""

    def __init__(
        self,
        *,
        root: str | None,
        num_classes: int | None,
        val_fraction: float,
        test_fraction: float,
        pixels: Pixels,
        batches: Batches,
        augment: Augment,
    ) -> None:
        super().__init__(num_classes=num_classes, pixels=pixels, batches=batches, augment=augment)
        if root is None:
            raise ConfigError("data=folder needs to know which; give data.root=FOLDER, with one folder for each class")
        self.root = data_root(root)
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def read_class_names(self) -> list[str]:
        """The folders of the training images, else of the images there are."""
        there = self._there()
        return class_folders(next((there[split] for split in _SPLITS if split in there), self.root))

    def read(self, part: str) -> dict[str, Source]:
        """The splits of a part, as the table above says."""
        there = self._there()
        if "train" in there and ("test" in there or "val" in there):
            return self._read_split(part, there)
        if "train" in there or not there:
            return self._read_whole(part, there.get("train", self.root))
        if part == "test":
            return {"test": self._scan(there.get("test") or there["val"])}
        return {"val": self._scan(there["val"])} if len(there) == 2 else {}

    def absent(self, split: str) -> str:
        """Say which folder would hold it."""
        return f"{self.root} has no {split} images; put them in {self.root / split}, one folder for each class"

    def _read_split(self, part: str, there: dict[str, Path]) -> dict[str, Source]:
        if part == "test":
            return {"test": self._scan(there.get("test") or there["val"])}
        train = self._scan(there["train"])
        if "val" in there and "test" in there:
            return {"train": train, "val": self._scan(there["val"])}
        kept, held = hold_out(train.labels, self.val_fraction)
        return {"train": train.subset(kept), "val": train.subset(held)}

    def _read_whole(self, part: str, folder: Path) -> dict[str, Source]:
        whole = self._scan(folder)
        learn, test = hold_out(whole.labels, self.test_fraction)
        if part == "test":
            return {"test": whole.subset(test)}
        learning = whole.subset(learn)
        share = min(1.0, self.val_fraction * len(whole) / max(1, len(learning)))  # a share of the whole, like test's
        train, val = hold_out(learning.labels, share)
        return {"train": learning.subset(train), "val": learning.subset(val)}

    def _scan(self, folder: Path) -> FileSource:
        return scan(folder, self.class_names)

    def _there(self) -> dict[str, Path]:
        """The split folders that exist."""
        found = {}
        for split, names in _SPLITS.items():
            folder = next((self.root / name for name in names if (self.root / name).is_dir()), None)
            if folder is not None:
                found[split] = folder
        return found
