"""The base of all image sets: the settings, the splits, and the loaders that Lightning asks for.

train is what a run learns from, val is held out of it for choices, test is looked at once at the end. Which samples
are held out is fixed for each set (split.py), never by the run's seed.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Never

import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch import Tensor

from vitexp.batch import PackedImages
from vitexp.data.augment.settings import Augment
from vitexp.data.augment.transform import evaluation_crop
from vitexp.data.features import FeatureLoader
from vitexp.data.file.image import open_image, to_image
from vitexp.data.loader import AnyLoader, Batches, Feed, Sampling, Source
from vitexp.data.order import Place, require_divisible
from vitexp.data.pixels import Pixels
from vitexp.data.sampling import Fixed
from vitexp.data.source import file_source
from vitexp.errors import DataError
from vitexp.seeding import permutation


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
        self.image_size, self.channels, self.mean, self.std = (
            pixels.image_size,
            pixels.channels,
            pixels.mean,
            pixels.std,
        )
        self.seed = batches.seed
        self.sampling: Sampling = batches.sampling or Fixed()
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

    def read(self, part: str) -> Mapping[str, Source]:
        """The splits of a part, `train` (with `val`) or `test`."""
        raise NotImplementedError

    def absent(self, split: str) -> str:
        """The sentence for when a split that does not exist is asked for."""
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
        """The configured number, else as many as there are in the files."""
        return self._num_classes if self._num_classes is not None else len(self.class_names)

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
        return len(self.sampling.order(self.source("train"), self._feed(training=True))) // self.batches.accumulate

    def about_batches(self) -> str:
        """A line for the header on what is special about the training batches; empty where nothing is."""
        return self.sampling.about(self.source("train"), self._feed(training=True))

    def prepare_data(self) -> None:
        """Look at the classes, so that a wrong folder is found before anything is built."""
        _ = self.class_names

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

    def inventory(self, *splits: str) -> dict[str, dict[str, Tensor]]:
        """Split -> column -> tensor with a row a sample (inventory.py): of `splits`, else of all that there are."""
        there = [split for split in splits or ("train", "val", "test") if self._size(split)]
        return {split: self._sources[split].inventory() for split in there}

    def train_dataloader(self) -> AnyLoader | FeatureLoader:
        """Shuffled and augmented batches; an incomplete global batch at the end of an epoch is dropped."""
        return self.loader("train", training=True)

    def val_dataloader(self) -> AnyLoader | FeatureLoader | list[Never]:
        """Batches of the held-out images; an empty list, which is no validation, when nothing is held out."""
        return self.loader("val", training=False) if len(self.source("val")) else []

    def test_dataloader(self) -> AnyLoader | FeatureLoader:
        """Batches of the test images."""
        return self.loader("test", training=False)

    def loader(self, split: str, *, training: bool) -> AnyLoader | FeatureLoader:
        """Batches of a split as they are trained on, or as evaluation sees them."""
        source, feed = self.source(split), self._feed(training=training)
        if split not in self.features:
            return self.sampling.loader(source, feed)
        return FeatureLoader(*self.features[split], Fixed().order(source, feed))

    def ordered_batches(self, split: str) -> AnyLoader:
        """All images of a split as evaluation sees them, in the order of the split, in every process."""
        return self._ordered(self.source(split))

    def sample(self, split: str, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """`count` images of a split, all of a smaller one, as the model gets them, and their labels: chosen by `seed`.

        In every process of a distributed run the same ones.
        """
        source = self.source(split)
        chosen = source.subset(permutation(seed, 0, len(source))[:count].sort().values)
        images, labels = zip(*self._ordered(chosen), strict=True)
        return torch.cat(images), torch.cat(labels)

    def _ordered(self, source: Source) -> AnyLoader:
        feed = self._feed(training=False)
        return Fixed().loader(source, replace(feed, place=replace(feed.place, rank=0, world_size=1)))

    def eval_transform(self) -> Callable[[Image.Image | Tensor], Tensor]:
        """The transform of a Pillow image or uint8 (C, H, W) for the model: float32 (C, image_size, image_size)."""
        return self._evaluate

    def read_image(self, path: str | Path) -> Tensor:
        """An image file as the model gets it: float32 (C, image_size, image_size). Raises DataError."""
        image = open_image(path, channels=self.channels, max_pixels=self.pixels.max_pixels)
        return self._evaluate(image)

    def batches_of_files(self, paths: Sequence[str | Path]) -> Iterator[tuple[list[int], Tensor | PackedImages]]:
        """Image files as the model gets them, batch by batch: numbers of those in a batch, and the batch.

        Where images are packed, the whole of each at its own aspect. Raises DataError.
        """
        names = [os.path.abspath(path) for path in paths]
        source = file_source(Path("/"), names, torch.zeros(len(paths), dtype=torch.int64))
        feed = self._feed(training=False)
        feed = replace(feed, place=replace(feed.place, accumulate=1), advice="")
        loader = self.sampling.whole().loader(source, feed)
        for step, (images, _) in zip(loader.sampler, loader, strict=True):
            yield step.positions.tolist(), images

    def _evaluate(self, image: Image.Image | Tensor) -> Tensor:
        if isinstance(image, Tensor):
            image = to_image(image)
        image = image.convert("RGB" if self.channels == 3 else "L")
        return self.pixels.normalise(evaluation_crop(image, self.pixels).unsqueeze(0)).squeeze(0)

    def _load(self, part: str) -> None:
        if part not in self._read:
            _ = self.class_names  # labels mean nothing unless the classes are right
            sources = self.read(part)
            if self.pixels.on_corrupt == "skip":
                sources = {split: source.intact(self.pixels) for split, source in sources.items()}
            self._sources.update(sources)
            self._read.add(part)

    def _size(self, split: str) -> int:
        self._load("test" if split == "test" else "train")
        return len(self._sources[split]) if split in self._sources else 0

    def _feed(self, *, training: bool) -> Feed:
        """Settings of a loader; the process and its device are the trainer's, if there is one."""
        trainer = self.trainer
        return Feed(
            pixels=self.pixels,
            batches=self.batches,
            augment=self.augment if training else None,
            training=training,
            num_classes=self.num_classes,
            place=Place(
                seed=self.batches.seed,
                accumulate=self.batches.accumulate,
                rank=trainer.global_rank if trainer else 0,
                world_size=trainer.world_size if trainer else 1,
                start=self.start if training else (0, 0),
            ),
            device=trainer.strategy.root_device if trainer else torch.device("cpu"),
        )
