"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 x 32 pixels, in memory.

Read from the binary version, whose records are label bytes and 3,072 bytes of pixels: nothing is unpickled. It is
fetched on first use; the page publishes MD5 only, the SHA-256 here are the ones that TensorFlow Datasets and others
have on record for the same files. CIFAR-10 is read as image folders too (`cifar10-images/{train,test}/<class>/`).
The official test images are test; val is `val_fraction` of the training images, stratified and fixed.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from vitexp.data.augment.settings import Augment
from vitexp.data.base import ImageData
from vitexp.data.file.fetch import Archive, data_root, fetch
from vitexp.data.file.image import decode_image
from vitexp.data.file.scan import class_folders, scan
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.data.source import memory_source
from vitexp.data.split import hold_out
from vitexp.errors import ConfigError, DataError
from vitexp.files.plain import read_plain

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_SITE = "https://www.cs.toronto.edu/~kriz"

CIFAR10 = Archive(
    url=f"{_SITE}/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    max_bytes=200_000_000,
    max_unpacked=200_000_000,
)
CIFAR100 = Archive(
    url=f"{_SITE}/cifar-100-binary.tar.gz",
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder="cifar-100-binary",
    max_bytes=200_000_000,
    max_unpacked=200_000_000,
)


class Cifar(ImageData):
    """The base of both sets: their place and their splits. `data.root` holds the set's folder, or is it."""

    archive: ClassVar[Archive]
    first_file: ClassVar[str]

    def __init__(
        self,
        *,
        root: str | None,
        num_classes: int,
        val_fraction: float,
        pixels: Pixels,
        batches: Batches,
        augment: Augment,
        quiet: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, pixels=pixels, batches=batches, augment=augment)
        self.root, self.val_fraction, self.quiet = data_root(root), val_fraction, quiet

    def prepare_data(self) -> None:
        """Fetch the binary version if the set is not there."""
        if not self.is_there():
            fetch(self.archive, self.root, quiet=self.quiet)

    def is_there(self) -> bool:
        """Whether there is nothing to fetch."""
        return self.binary() is not None

    def binary(self) -> Path | None:
        """The folder of the binary version."""
        return _folder_with(self.root, self.archive.folder, self.first_file)

    def folder(self) -> Path:
        """The folder of the set. Raises DataError where it is absent."""
        if (folder := self.binary()) is None:
            raise DataError(f"{self.archive.folder} is absent from {self.root}: data.prepare_data() fetches it")
        return folder

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (N, 3, 32, 32) and labels (N,) of `train` or `test`."""
        raise NotImplementedError

    def read(self, part: str) -> dict[str, Source]:
        """The test images, or the training images with val held out of them."""
        images, labels = self.arrays(part)
        whole = memory_source(images, labels, num_classes=len(self.class_names), where=self.root)
        if part == "test":
            return {"test": whole}
        train, val = hold_out(whole.labels, self.val_fraction)
        return {"train": whole.subset(train), "val": whole.subset(val)}


class Cifar10(Cifar):
    """CIFAR-10: ten classes, from the binary version or, where that is absent, from image folders."""

    archive, first_file = CIFAR10, "data_batch_1.bin"

    def is_there(self) -> bool:
        return self.binary() is not None or self._images() is not None

    def read_class_names(self) -> list[str]:
        """The names in `batches.meta.txt`, or those of the folders, which are the same."""
        folder = self.binary()
        if folder is not None:
            return _names(folder / "batches.meta.txt")
        return class_folders(self._image_root() / "train")

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and labels of the five training batches, or of the test batch; or decoded from the image files."""
        folder = self.binary()
        if folder is None:
            return _decode(self._image_root() / part, self.class_names)
        names = ["test_batch.bin"] if part == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
        images, labels = zip(*(read_records(folder / name, labels=1) for name in names), strict=True)
        return np.concatenate(images), np.concatenate(labels)[:, 0]

    def _images(self) -> Path | None:
        return _folder_with(self.root, "cifar10-images", "train")

    def _image_root(self) -> Path:
        return self._images() or self.folder()


class Cifar100(Cifar):
    """CIFAR-100 with its 100 `fine` or its 20 `coarse` labels."""

    archive, first_file = CIFAR100, "train.bin"

    def __init__(
        self,
        *,
        root: str | None,
        labels: str,
        num_classes: int,
        val_fraction: float,
        pixels: Pixels,
        batches: Batches,
        augment: Augment,
        quiet: bool = False,
    ) -> None:
        super().__init__(
            root=root,
            num_classes=num_classes,
            val_fraction=val_fraction,
            pixels=pixels,
            batches=batches,
            augment=augment,
            quiet=quiet,
        )
        if labels not in ("fine", "coarse"):
            raise ConfigError(f"data.labels={labels} is unknown; use data.labels=fine (100) or data.labels=coarse (20)")
        self.label_kind = labels

    def read_class_names(self) -> list[str]:
        """The names in `fine_label_names.txt` or `coarse_label_names.txt`."""
        return _names(self.folder() / f"{self.label_kind}_label_names.txt")

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and labels of `train.bin` or `test.bin`, whose records begin with the coarse and the fine label."""
        images, labels = read_records(self.folder() / f"{part}.bin", labels=2)
        return images, labels[:, 1 if self.label_kind == "fine" else 0]


def _names(file: Path) -> list[str]:
    """The names of the classes in a file of the set. Raises DataError."""
    advice = "fetch the set again"
    try:
        return read_plain(file, max_bytes=_SIDE * _PIXELS, error=DataError, advice=advice).split()
    except FileNotFoundError:
        raise DataError(f"{file} is absent; {advice}") from None


def read_records(file: Path, *, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N, `labels`), both uint8, of a binary file.

    Raises:
        DataError: absent, empty, or not a whole number of records.
    """
    record = labels + _PIXELS
    size = file.stat().st_size if file.is_file() else 0
    if size == 0 or size % record:
        raise DataError(f"{file} has {size:,} bytes, no whole number of records of {record}; fetch the set again")
    table = np.fromfile(file, dtype=np.uint8).reshape(-1, record)
    return table[:, labels:].reshape(-1, 3, _SIDE, _SIDE), table[:, :labels]


def _decode(folder: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """All images of a folder at once: a few seconds for 50,000 files, so nothing is cached on disk."""
    files = scan(folder, classes)
    images = np.empty((len(files), 3, _SIDE, _SIDE), dtype=np.uint8)
    for position in range(len(files)):
        image = decode_image(files.path(position), channels=3, max_pixels=_SIDE * _SIDE)
        if image.shape != (3, _SIDE, _SIDE):
            raise DataError(f"{files.path(position)} is {tuple(image.shape[1:])}, not 32 x 32; use data=folder for it")
        images[position] = image.numpy()
    return images, files.labels.numpy()


def _folder_with(root: Path, name: str, inside: str) -> Path | None:
    """`root`/`name`, or `root` itself, whichever holds `inside`."""
    return next((folder for folder in (root / name, root) if (folder / inside).exists()), None)
