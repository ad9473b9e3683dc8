"""A split of a data set as it is stored: pixels in memory, or the names of files."""

import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitexp.data.file.image import decode_image, image_size, open_image, to_image
from vitexp.data.file.intact import intact
from vitexp.data.inventory import digests, of_files
from vitexp.data.loader import Batch, Collated, Loader, Sample, Source
from vitexp.data.order import AnyStep
from vitexp.data.pixels import Pixels
from vitexp.data.reader import FileReader, MemoryReader
from vitexp.errors import DataError


@dataclass(frozen=True, eq=False)
class MemorySource(Source):
    """Images uint8 (N, C, H, W) and labels int64 (N,)."""

    images: Tensor
    labels: Tensor
    keys: Tensor

    def subset(self, positions: Tensor) -> Self:
        return type(self)(self.images[positions], self.labels[positions], self.keys[positions])

    def open(self, position: int, pixels: Pixels) -> Image.Image:
        return to_image(self.images[position])

    def decode(self, position: int, pixels: Pixels) -> Tensor:
        return self.images[position]

    def read_sizes(self, max_pixels: int) -> Tensor:
        return torch.tensor(self.images.shape[-2:]).expand(len(self), 2)

    def inventory(self) -> dict[str, Tensor]:
        return {**super().inventory(), "content": digests(self.images)}

    def reader(self, loader: Loader[AnyStep, Sample, Collated, Batch]) -> Iterable[tuple[AnyStep, Collated]]:
        return MemoryReader(self.images, self.keys, loader)


class Files(Source):
    """Image files below `root`.

    names: bytes (N,), relative to `root`; a NumPy array, because workers would each copy a list of a million strings
    by counting references.
    """

    root: Path
    names: np.ndarray

    def path(self, position: int) -> str:
        """The file at a position."""
        return os.path.join(self.root, os.fsdecode(self.names[position]))

    def open(self, position: int, pixels: Pixels) -> Image.Image:
        return open_image(self.path(position), channels=pixels.channels, max_pixels=pixels.max_pixels)

    def decode(self, position: int, pixels: Pixels) -> Tensor:
        return decode_image(self.path(position), channels=pixels.channels, max_pixels=pixels.max_pixels)

    def read_sizes(self, max_pixels: int) -> Tensor:
        sizes = [image_size(self.path(position), max_pixels=max_pixels) for position in range(len(self))]
        return torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)

    def intact(self, pixels: Pixels) -> Self:
        kept = intact([self.path(position) for position in range(len(self))], pixels, where=self.root)
        return self if len(kept) == len(self) else self.subset(torch.tensor(kept))

    def inventory(self) -> dict[str, Tensor]:
        return {**super().inventory(), **of_files(self.root, self.names)}

    def reader(self, loader: Loader[AnyStep, Sample, Collated, Batch]) -> Iterable[tuple[AnyStep, Collated]]:
        return FileReader(loader, self.path)


@dataclass(frozen=True, eq=False)
class FileSource(Files):
    """Labels are int64 (N,), or bool (N, K) where a photograph has several right answers."""

    root: Path
    names: np.ndarray
    labels: Tensor
    keys: Tensor

    def subset(self, positions: Tensor) -> Self:
        names = self.names[positions.numpy()]
        return replace(self, names=names, labels=self.labels[positions], keys=self.keys[positions])


@dataclass(frozen=True, eq=False)
class CropSource(FileSource):
    """Parts of image files: boxes int64 (N, 4), left, top, right, bottom in pixels, inside their images."""

    boxes: Tensor

    def open(self, position: int, pixels: Pixels) -> Image.Image:
        left, top, right, bottom = self.boxes[position].tolist()
        return super().open(position, pixels).crop((left, top, right, bottom))

    def decode(self, position: int, pixels: Pixels) -> Tensor:
        left, top, right, bottom = self.boxes[position].tolist()
        return super().decode(position, pixels)[:, top:bottom, left:right]

    def read_sizes(self, max_pixels: int) -> Tensor:
        return (self.boxes[:, 2:] - self.boxes[:, :2]).flip(1)

    def subset(self, positions: Tensor) -> Self:
        return replace(super().subset(positions), boxes=self.boxes[positions])

    def inventory(self) -> dict[str, Tensor]:
        """A row each photograph, in the order of their names."""
        names, photograph = np.unique(self.names, return_inverse=True)
        crops = digests(torch.cat([self.labels.unsqueeze(1), self.boxes], 1))
        objects = torch.zeros(len(names), dtype=torch.int64).index_add_(0, torch.from_numpy(photograph), crops)
        return {**of_files(self.root, names), "objects": objects}


_sizes: "weakref.WeakKeyDictionary[Source, Tensor]" = weakref.WeakKeyDictionary()


def image_sizes(source: Source, *, max_pixels: int) -> Tensor:
    """(height, width) of each image as stored, int64 (N, 2); of files by their headers, once. Raises DataError."""
    if source not in _sizes:
        _sizes[source] = source.read_sizes(max_pixels)
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
