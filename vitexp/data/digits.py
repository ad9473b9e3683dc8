"""The 1,797 handwritten digits that ship with scikit-learn: 8 x 8 pixels, grey, no download.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998). The split is
fixed and stratified: 360 images are test, of the other 1,437 `val_fraction` are val and the rest is train.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vitexp.data.augment.settings import Augment
from vitexp.data.base import ImageData
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.data.source import memory_source
from vitexp.data.split import hold_out
from vitexp.errors import DataError

TEST_SIZE = 360
_FILE = "datasets/data/digits.csv.gz"


class Digits(ImageData):
    """The digits, their 17 grey levels spread over 0..255."""

    def __init__(
        self, *, num_classes: int, val_fraction: float, pixels: Pixels, batches: Batches, augment: Augment
    ) -> None:
        super().__init__(num_classes=num_classes, pixels=pixels, batches=batches, augment=augment)
        self.val_fraction = val_fraction

    def read_class_names(self) -> list[str]:
        """The names of the classes, 0 to 9."""
        return [str(digit) for digit in range(10)]

    def read(self, part: str) -> dict[str, Source]:
        """Both parts come from one array."""
        values = _read_table()
        images, labels = values[:, :-1].reshape(-1, 1, 8, 8), values[:, -1].astype(np.int64)
        images = np.rint(images * (255 / 16)).astype(np.uint8)
        images = images.repeat(self.channels, axis=1)  # grey as RGB, for a model trained on photographs
        whole = memory_source(images, labels, num_classes=10, where="scikit-learn's digits")
        learn, test = hold_out(whole.labels, TEST_SIZE / len(whole))
        if part == "test":
            return {"test": whole.subset(test)}
        learning = whole.subset(learn)
        train, val = hold_out(learning.labels, self.val_fraction)
        return {"train": learning.subset(train), "val": learning.subset(val)}


def _read_table() -> np.ndarray:
    """scikit-learn's table (1797, 65), grey levels and class, without two seconds of importing scikit-learn.

    Raises:
        DataError: it is not installed, or has no such file.
    """
    package = find_spec("sklearn")
    folders = package.submodule_search_locations if package is not None else None
    file = Path(folders[0], _FILE) if folders else None
    if file is None or not file.is_file():
        raise DataError(f"data=digits reads {_FILE} of scikit-learn, which is not there; pip install scikit-learn")
    return np.loadtxt(file, delimiter=",")
