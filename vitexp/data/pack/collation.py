"""Batches of packed images for a model that takes `PackedImages`: of a set in memory, and of image files by workers.

Labels int64 (images,), in the order in which images stand in their sequences. Pixels go from the stored image to its
patches by one resize, whatever its size and aspect; nothing is cut to a square.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from vitexp import seeding
from vitexp.batch import PackedImages, grid_places, pack_images, to_patches
from vitexp.data.augment.on_device import FLIP, BatchAugment
from vitexp.data.augment.settings import Augment
from vitexp.data.file.image import to_tensor
from vitexp.data.loader import ALL_FILES, Feed, FolderLoader, _Failure
from vitexp.data.pack.drop import kept_tokens
from vitexp.data.pack.order import PackOrder, Shown
from vitexp.data.source import FileSource, MemorySource
from vitexp.errors import ConfigError, DataError

Batch = tuple[PackedImages, Tensor]
Tokens = tuple[Tensor, Tensor, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Cutter:
    """From the pixels of an image to its tokens."""

    patch_size: int
    interpolation: str

    def __call__(self, image: Tensor, shown: Shown, position: int) -> Tokens:
        """An image (C, H, W) in 0..255 as it is shown: patches (n, C * P * P), places (n, 2), grid."""
        top, left, height, width = shown.boxes[position].tolist()
        box = image[:, top : top + height, left : left + width]
        grid = (int(shown.grids[position, 0]), int(shown.grids[position, 1]))
        size = [side * self.patch_size for side in grid]
        pixels = box.float()
        if list(pixels.shape[1:]) != size:
            mode = "bilinear" if self.interpolation == "bilinear" else "bicubic"
            pixels = F.interpolate(pixels[None], size, mode=mode, antialias=True)[0].clamp_(0, 255)
        patches, places = to_patches(pixels, self.patch_size), grid_places(grid)
        kept = kept_tokens(int(shown.keys[position]), len(patches), int(shown.kept[position]))
        return (patches, places, grid) if kept is None else (patches[kept], places[kept], grid)


class PackedMemoryLoader:
    """Packed batches of a set in memory, augmented at its native size."""

    batch_sampler = None

    def __init__(self, source: MemorySource, order: PackOrder, feed: Feed) -> None:
        refuse_mixing(feed.augment)
        self.sampler, self.feed, self.labels, self.images = order, feed, source.labels, source.images
        self.cut = Cutter(patch_size=order.packing.patch_size, interpolation=feed.pixels.interpolation)
        self.batch_augment = None
        if feed.augment is not None:
            self.batch_augment = BatchAugment(
                self.images, source.keys, augment=feed.augment, pixels=feed.pixels, seed=feed.seed
            )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        order = self.sampler
        shown, _ = order.plan(order.epoch)
        for _, sequences, weight in order:
            positions = torch.tensor([position for row in sequences for position in row])
            pixels = iter(self._pixels(positions))
            rows = [[self.cut(next(pixels), shown, position) for position in row] for row in sequences]
            batch = pack_images(rows, length=order.length, patch_size=self.cut.patch_size, weight=weight)
            yield finish(batch, self.feed), self.labels[positions].to(self.feed.device)

    def _pixels(self, positions: Tensor) -> Tensor:
        settings = self.feed.settings(self.sampler.epoch)
        if self.batch_augment is None or settings is None:
            return self.images[positions]
        return self.batch_augment(positions, self.sampler.epoch, settings)


class PackedFileLoader(FolderLoader):
    """Packed batches of image files, decoded and resized by workers; the same with any number of them."""

    def __init__(  # another order, whose batches are sequences
        self, source: FileSource, order: PackOrder, feed: Feed, *, num_workers: int, timeout: float
    ) -> None:
        refuse_mixing(feed.augment)
        self.order, self.feed, self.labels = order, feed, source.labels
        self.sampler: Any = order
        self.num_workers, self.timeout = num_workers, timeout
        self.loader = DataLoader(
            _PackedFiles(source, feed, order),
            batch_sampler=_Rows(order),
            num_workers=num_workers,
            collate_fn=list,
            pin_memory=False,
            persistent_workers=num_workers > 0 and feed.augment is not None,
            timeout=timeout if num_workers > 0 else 0,
            generator=torch.Generator(),  # else each iterator draws from the global one
        )

    def __iter__(self) -> Iterator[Any]:
        batches: Any = iter(self.loader)
        while (item := self._next(batches)) is not None:
            samples: Any = item
            if failed := next((sample for sample in samples if isinstance(sample, _Failure)), None):
                raise DataError(f"{failed.message}{ALL_FILES}")
            rows: list[list[Tokens]] = []
            positions = []
            for (row, position, _), tokens in samples:
                rows += [[]] * (row == len(rows))
                rows[row] = [*rows[row], tokens]
                positions.append(position)
            weight = samples[0][0][2]
            patch = self.order.packing.patch_size
            batch = pack_images(rows, length=self.order.length, patch_size=patch, weight=weight)
            yield finish(batch, self.feed), self.labels[torch.tensor(positions)].to(self.feed.device)


class _Rows:
    """The order as DataLoader wants it: for each batch a list of (epoch, sequence, position, weight)."""

    def __init__(self, order: PackOrder) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[tuple[int, int, int, float]]]:
        epoch = self.order.epoch
        for _, sequences, weight in self.order:
            yield [(epoch, row, position, weight) for row, images in enumerate(sequences) for position in images]


class _PackedFiles(Dataset[Any]):
    """Reads one file and cuts it; lives in the workers, each of which plans the epoch for itself."""

    def __init__(self, source: FileSource, feed: Feed, order: PackOrder) -> None:
        self.source, self.feed, self.order = source, feed, order
        self.cut = Cutter(patch_size=order.packing.patch_size, interpolation=feed.pixels.interpolation)

    def __getitem__(self, key: tuple[int, int, int, float]) -> Any:
        epoch, row, position, weight = key
        shown, _ = self.order.plan(epoch)
        pixels, settings = self.feed.pixels, self.feed.settings(epoch)
        try:
            if settings is None:
                image = to_tensor(self.source.open(position, channels=pixels.channels, max_pixels=pixels.max_pixels))
            else:
                image = self.source.decode(position, channels=pixels.channels, max_pixels=pixels.max_pixels)
                if settings.geometry in ("crop_flip", "resized_crop_flip"):
                    mirrored = seeding.uniform(shown.keys[position : position + 1], FLIP) < settings.flip_rate
                    image = image.flip(-1) if bool(mirrored) else image
        except DataError as error:
            return _Failure(f"file {position}: {error}")
        return (row, position, weight), self.cut(image, shown, position)


def finish(batch: PackedImages, feed: Feed) -> PackedImages:
    """Patches in 0..255 normalised on the training device, zero where padded."""
    batch = batch.to(feed.device)
    patches = batch.patches.unflatten(-1, (feed.pixels.channels, -1, 1))  # (B, L, C, P * P, 1)
    patches = feed.pixels.normalise(patches).flatten(2)
    return replace(batch, patches=patches.masked_fill_((batch.owner < 0)[..., None], 0.0))


def refuse_mixing(augment: Augment | None) -> None:
    """Raise ConfigError for augmentations that need images of one size."""
    if augment is not None and (augment.mixup or augment.cutmix):
        raise ConfigError(
            f"augment.mixup={augment.mixup} augment.cutmix={augment.cutmix} mix images of one size and data.sampler="
            "packed has many; use augment=basic, or augment.mixup=0 augment.cutmix=0"
        )
