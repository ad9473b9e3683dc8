"""A split of a data set as it is stored: pixels in memory, or the names of files."""

import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitexp.data.file.image import decode_image, image_size, open_image
from vitexp.errors import DataError


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Images uint8 (N, C, H, W), labels int64 (N,), and keys int64 (N,): each sample's number in the whole set."""

    images: Tensor
    labels: Tensor
    keys: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, positions: Tensor) -> "MemorySource":
        """The samples at `positions` (M,), under the keys they have here."""
        return MemorySource(self.images[positions], self.labels[positions], self.keys[positions])


@dataclass(frozen=True, eq=False)
class FileSource:
    """Image files below `root`.

    names: bytes (N,), relative to `root`; a NumPy array, because workers would each copy a list of a million strings
    by counting references. labels: int64 (N,), or bool (N, K) where a photograph has several right answers. keys: as
    in MemorySource.
    """

    root: Path
    names: np.ndarray
    labels: Tensor
    keys: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, position: int) -> str:
        """The file at a position."""
        return os.path.join(self.root, os.fsdecode(self.names[position]))

    def open(self, position: int, *, channels: int, max_pixels: int) -> Image.Image:
        """The image at a position by Pillow. Raises DataError."""
        return open_image(self.path(position), channels=channels, max_pixels=max_pixels)

    def decode(self, position: int, *, channels: int, max_pixels: int) -> Tensor:
        """The image at a position by the fastest decoder: uint8 (C, H, W). Raises DataError."""
        return decode_image(self.path(position), channels=channels, max_pixels=max_pixels)

    def sizes(self, max_pixels: int) -> Tensor:
        """(height, width) of each image, int64 (N, 2), by the headers of the files. Raises DataError."""
        sizes = [image_size(self.path(position), max_pixels=max_pixels) for position in range(len(self))]
        return torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)

    def subset(self, positions: Tensor) -> "FileSource":
        """The files at `positions` (M,), under the keys they have here."""
        chosen = self.names[positions.numpy()]
        return FileSource(self.root, chosen, self.labels[positions], self.keys[positions])


@dataclass(frozen=True, eq=False)
class CropSource(FileSource):
    """Parts of image files: boxes int64 (N, 4), left, top, right, bottom in pixels, inside their images."""

    boxes: Tensor

    def open(self, position: int, *, channels: int, max_pixels: int) -> Image.Image:
        left, top, right, bottom = self.boxes[position].tolist()
        return super().open(position, channels=channels, max_pixels=max_pixels).crop((left, top, right, bottom))

    def decode(self, position: int, *, channels: int, max_pixels: int) -> Tensor:
        left, top, right, bottom = self.boxes[position].tolist()
        return super().decode(position, channels=channels, max_pixels=max_pixels)[:, top:bottom, left:right]

    def sizes(self, max_pixels: int) -> Tensor:
        return (self.boxes[:, 2:] - self.boxes[:, :2]).flip(1)

    def subset(self, positions: Tensor) -> "CropSource":
        whole = super().subset(positions)
        return CropSource(whole.root, whole.names, whole.labels, whole.keys, boxes=self.boxes[positions])


_sizes: "weakref.WeakKeyDictionary[MemorySource | FileSource, Tensor]" = weakref.WeakKeyDictionary()


def image_sizes(source: MemorySource | FileSource, *, max_pixels: int) -> Tensor:
    """(height, width) of each image as stored, int64 (N, 2); of files by their headers, once. Raises DataError."""
    if isinstance(source, MemorySource):
        return torch.tensor(source.images.shape[-2:]).expand(len(source), 2)
    if source not in _sizes:
        _sizes[source] = source.sizes(max_pixels)
    return _sizes[source]


def memory_source(images: np.ndarray, labels: np.ndarray, *, num_classes: int, where: Path | str) -> MemorySource:
    """A source from arrays. Raises DataError for a label outside 0..num_classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: sample {first} has label {int(labels[first])}, allowed is 0 to {num_classes - 1}; "
            f"the file is damaged or of another data set: fetch it again"
        )
    count = len(labels)
    tensor = torch.from_numpy(np.array(labels, dtype=np.int64))
    return MemorySource(torch.from_numpy(np.ascontiguousarray(images)), tensor, torch.arange(count))


def file_source(root: Path, names: list[str], labels: Tensor) -> FileSource:
    """A source from file names relative to `root`."""
    encoded = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
    return FileSource(root, encoded, labels, torch.arange(len(names)))
