"""What all image sets share: the settings, the splits, and the loaders that Lightning asks for.

train is what a run learns from, val is held out of it for choices, test is looked at once at the end. Which samples
are held out is fixed for each set (split.py), never by the run's seed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch import Tensor

from vitexp.data.augment.settings import Augment
from vitexp.data.augment.transform import evaluation_crop
from vitexp.data.features import FeatureLoader
from vitexp.data.file.image import open_image
from vitexp.data.file.intact import without_damaged
from vitexp.data.loader import Feed, FolderLoader, MemoryLoader
from vitexp.data.multiscale import MultiScale, MultiScaleOrder
from vitexp.data.order import EpochOrder, require_divisible
from vitexp.data.pack.loader import PackedFileLoader, PackedMemoryLoader
from vitexp.data.pack.order import Packing, PackOrder
from vitexp.data.pixels import Pixels
from vitexp.data.source import FileSource, MemorySource, file_source, image_sizes
from vitexp.errors import ConfigError, DataError
from vitexp.seeding import permutation

Source = MemorySource | FileSource
Loader = MemoryLoader | FolderLoader | FeatureLoader | PackedMemoryLoader


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Settings of the batches.

    size: the global batch, of one optimiser step; accumulate: micro-batches it is cut into; num_workers: processes
    that decode files, at most one a core (no result depends on it); timeout: seconds to wait for them; seed, epochs:
    the run's; sampling: how images become batches, None for batches of images of one size.
    """

    size: int
    accumulate: int
    num_workers: int
    timeout: float
    seed: int
    epochs: int
    sampling: Packing | MultiScale | None = None


class ImageData(LightningDataModule):
    """Base of the data sets. A subclass says its classes and how to read its parts:

    `read_class_names()`; `read(part)`, which for `train` returns {"train": ..., "val": ...} and for `test`
    {"test": ...}, a split that does not exist left out; `absent(split)`, the way out when one is asked for.

    `start` is the (epoch, batch) at which a resumed run goes on; set it before Lightning asks for the loader.
    """

    def __init__(self, *, num_classes: int | None, pixels: Pixels, batches: Batches, augment: Augment) -> None:
        super().__init__()
        require_divisible(batches.size, batches.accumulate, world_size=1)
        self.pixels, self.batches, self.augment = pixels, batches, augment
        self.start: tuple[int, int] = (0, 0)
        self._num_classes = num_classes
        self._class_names: list[str] | None = None
        self._sources: dict[str, Source] = {}
        self._read: set[str] = set()
        # Split -> (features (N, D), labels) that stand for its images, where a frozen model has embedded them.
        self.features: dict[str, tuple[Tensor, Tensor]] = {}

    def read_class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        raise NotImplementedError

    def read(self, part: str) -> dict[str, Source]:
        """The splits of a part, `train` (with `val`) or `test`."""
        raise NotImplementedError

    def absent(self, split: str) -> str:
        """What to say when a split that does not exist is asked for."""
        return f"this data set has no {split} images"

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels. Raises DataError if there are not `num_classes`."""
        if self._class_names is None:
            names = self.read_class_names()
            if self._num_classes not in (None, len(names)):
                raise DataError(
                    f"data.num_classes={self._num_classes}, but the data has {len(names)} classes "
                    f"({', '.join(names[:3])}, ...); use data.num_classes={len(names)}, or another data.root"
                )
            self._class_names = names
        return self._class_names

    @property
    def num_classes(self) -> int:
        """As configured, else as many as there are in the files."""
        return self._num_classes if self._num_classes is not None else len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height and width of the images that the model gets."""
        return self.pixels.image_size

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.pixels.channels

    @property
    def mean(self) -> list[float]:
        """Of each channel, for pixels in 0..1."""
        return self.pixels.mean

    @property
    def std(self) -> list[float]:
        """Of each channel, for pixels in 0..1."""
        return self.pixels.std

    @property
    def seed(self) -> int:
        """The run's."""
        return self.batches.seed

    @property
    def train_size(self) -> int:
        """Images trained on in an epoch, before incomplete batches are dropped; 0 if there is no such split."""
        return self._size("train")

    @property
    def val_size(self) -> int:
        """Images held out for choices."""
        return self._size("val")

    @property
    def test_size(self) -> int:
        """Images that the final score is taken on."""
        return self._size("test")

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        if isinstance(self.batches.sampling, Packing):
            return self._pack_order(self.source("train"), self.batches.sampling, training=True).steps
        return len(self._order(self.train_size, training=True)) // self.batches.accumulate

    def about_batches(self) -> str:
        """What is special about the training batches, in a line for the header; empty where nothing is."""
        sampling = self.batches.sampling
        if isinstance(sampling, MultiScale):
            pairs = sampling.pairs(self.image_size, self.batches.size, parts=self.batches.accumulate)
            return ", ".join(f"{images} at {side}" for side, images in pairs) + " pixels"
        if not isinstance(sampling, Packing):
            return ""
        order = self._pack_order(self.source("train"), sampling, training=True)
        return (
            f"sequences of {order.length} tokens, {order.per_sequence:.1f} images and {order.padding_rate:.1%} padding "
            f"each, {sampling.budget // order.length} a step"
        )

    def setup(self, stage: str | None = None) -> None:
        """Read what a stage needs: `fit` and `validate` train and val, `test` test, None both. Reads a part once."""
        if stage in (None, "fit", "validate"):
            self._load("train")
        if stage in (None, "test"):
            self._load("test")

    def source(self, split: str) -> Source:
        """A split as stored, read on first demand. Raises DataError if it does not exist."""
        self._load("test" if split == "test" else "train")
        if split not in self._sources:
            raise DataError(self.absent(split))
        return self._sources[split]

    def train_dataloader(self) -> Loader:
        """Shuffled and augmented batches; an incomplete global batch at the end of an epoch is dropped."""
        if "train" in self.features:
            return FeatureLoader(*self.features["train"], self._order(self.train_size, training=True))
        return self._loader("train", training=True)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Batches of the held-out images; an empty list, which is no validation, when nothing is held out."""
        source = self.source("val")
        if "val" in self.features:
            return FeatureLoader(*self.features["val"], self._order(len(source), training=False))
        return self._loader("val", training=False) if len(source) else []

    def test_dataloader(self) -> Loader:
        """Batches of the test images."""
        return self._loader("test", training=False)

    def ordered_batches(self, split: str) -> Loader:
        """All images of a split as evaluation sees them, in the order of the split, in every process."""
        return self._batches_of(self.source(split), training=False, shared=True)

    def sample(self, split: str, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """`count` images of a split, all of a smaller one, as the model gets them, and their labels: chosen by `seed`.

        In every process of a distributed run the same ones. Raises ConfigError for images without one label each.
        """
        source: object = self.source(split)
        if not isinstance(source, MemorySource | FileSource):
            raise ConfigError(
                "an analysis looks at images with a class each and this data set has none; it needs an image set; use"
                " data=digits, cifar10, cifar100, imagenet or folder"
            )
        chosen = source.subset(permutation(seed, 0, len(source))[:count].sort().values)
        images, labels = zip(*self._batches_of(chosen, training=False, shared=True), strict=True)
        return torch.cat(images), torch.cat(labels)

    def eval_transform(self) -> Callable[[Image.Image | Tensor], Tensor]:
        """From a Pillow image or uint8 (C, H, W) to what the model gets: float32 (C, image_size, image_size)."""
        return self._evaluate

    def read_image(self, path: str | Path) -> Tensor:
        """An image file as the model gets it: float32 (C, image_size, image_size). Raises DataError."""
        image = open_image(path, channels=self.channels, max_pixels=self.pixels.max_pixels)
        return self._evaluate(image)

    def batches_of_files(self, paths: Sequence[str | Path]) -> Iterator[tuple[list[int], Any]]:
        """Image files as the model gets them, batch by batch: numbers of those in a batch, and the batch.

        Where images are packed, the whole of each at its own aspect. Raises DataError.
        """
        packing = self.batches.sampling
        if isinstance(packing, Packing):
            names = [os.path.abspath(path) for path in paths]
            source = file_source(Path("/"), names, torch.zeros(len(paths), dtype=torch.int64))
            loader: Any = self._packed_loader(source, replace(packing, aspect=0.0), training=False)
            for (_, rows, _), (images, _) in zip(loader.sampler, loader, strict=True):
                yield [position for row in rows for position in row], images
            return
        for start in range(0, len(paths), self.batches.size):
            which = list(range(start, min(start + self.batches.size, len(paths))))
            yield which, torch.stack([self.read_image(paths[index]) for index in which])

    def _evaluate(self, image: Image.Image | Tensor) -> Tensor:
        if isinstance(image, Tensor):
            image = Image.fromarray(image.squeeze(0).numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())
        image = image.convert("RGB" if self.channels == 3 else "L")
        return self.pixels.normalise(evaluation_crop(image, self.pixels).unsqueeze(0)).squeeze(0)

    def _load(self, part: str) -> None:
        if part not in self._read:
            _ = self.class_names  # labels mean nothing unless the classes are right
            sources = self.read(part)
            if self.pixels.on_corrupt == "skip":
                sources = {split: without_damaged(source, self.pixels) for split, source in sources.items()}
            self._sources.update(sources)
            self._read.add(part)

    def _size(self, split: str) -> int:
        self._load("test" if split == "test" else "train")
        return len(self._sources[split]) if split in self._sources else 0

    def _loader(self, split: str, *, training: bool) -> Loader:
        if isinstance(self.batches.sampling, Packing):
            return self._packed_loader(self.source(split), self.batches.sampling, training=training)
        return self._batches_of(self.source(split), training=training)

    def _batches_of(self, source: Source, *, training: bool, shared: bool = False) -> Loader:
        batches = self.batches
        order = self._order(len(source), training=training, shared=shared)
        feed = self._feed_of(training)
        if isinstance(source, MemorySource):
            return MemoryLoader(source, order, feed)
        workers = min(batches.num_workers, _cores())
        return FolderLoader(source, order, feed, num_workers=workers, timeout=batches.timeout)

    def _packed_loader(self, source: Source, packing: Packing, *, training: bool) -> Loader:
        order, feed, batches = (
            self._pack_order(source, packing, training=training),
            self._feed_of(training),
            self.batches,
        )
        if isinstance(source, MemorySource):
            return PackedMemoryLoader(source, order, feed)
        workers = min(batches.num_workers, _cores())
        return PackedFileLoader(source, order, feed, num_workers=workers, timeout=batches.timeout)

    def _pack_order(self, source: Source, packing: Packing, *, training: bool) -> PackOrder:
        batches, (rank, world_size, _) = self.batches, self._place()
        return PackOrder(
            image_sizes(source, max_pixels=self.pixels.max_pixels),
            source.keys,
            packing,
            image_size=self.image_size,
            seed=batches.seed,
            training=training,
            accumulate=batches.accumulate if training else 1,
            rank=rank,
            world_size=world_size,
            start=self.start if training else (0, 0),
        )

    def _feed_of(self, training: bool) -> Feed:
        return Feed(
            pixels=self.pixels,
            augment=self.augment if training else None,
            epochs=self.batches.epochs,
            seed=self.batches.seed,
            num_classes=self.num_classes,
            device=self._place()[2],
        )

    def _order(self, count: int, *, training: bool, shared: bool = False) -> EpochOrder:
        """Which of `count` samples this process sees when; with `shared` all of them in every process."""
        batches, (rank, world_size, _) = self.batches, self._place()
        if training and isinstance(batches.sampling, MultiScale):
            return MultiScaleOrder(
                count,
                batches.size,
                batches.sampling,
                image_size=self.image_size,
                seed=batches.seed,
                accumulate=batches.accumulate,
                rank=rank,
                world_size=world_size,
                start=self.start,
            )
        return EpochOrder(
            count,
            batches.size,
            seed=batches.seed,
            shuffle=training,
            drop_last=training,
            accumulate=batches.accumulate,
            rank=0 if shared else rank,
            world_size=1 if shared else world_size,
            start=self.start if training else (0, 0),
        )

    def _place(self) -> tuple[int, int, torch.device]:
        """Rank, number of processes and device, from the trainer if there is one."""
        if self.trainer is None:
            return 0, 1, torch.device("cpu")
        return self.trainer.global_rank, self.trainer.world_size, self.trainer.strategy.root_device


def _cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
