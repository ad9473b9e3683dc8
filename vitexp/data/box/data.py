"""The base of detection sets: the sizes, the loaders, and one photograph as a detector gets it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from vitexp.data.augment.settings import Augment
from vitexp.data.base import ImageData
from vitexp.data.box.augment import BoxAugment, Frame
from vitexp.data.box.collation import BoxTransform, Example, Pad, Target
from vitexp.data.box.source import BoxSource
from vitexp.data.file.image import open_image
from vitexp.data.loader import AnyLoader, Batches, Feed, Loader, Source
from vitexp.data.order import Share
from vitexp.data.pixels import Pixels
from vitexp.data.sampling import Fixed
from vitexp.errors import ConfigError


@dataclass(frozen=True)
class Boxes(Fixed):
    """Photographs of one `frame`, padded to a common size; `augment` is None for training without any."""

    frame: Frame
    augment: BoxAugment | None
    square: bool

    def loader(self, source: Source, feed: Feed) -> AnyLoader:
        assert isinstance(source, BoxSource)
        transform = BoxTransform(feed, source, self.frame, self.augment)
        return Loader(source, self.order(source, feed), transform, Pad(feed, square=self.square))


class BoxData(ImageData):
    """Base of the detection sets. `read(part)` gives BoxSources, otherwise as ImageData asks.

    Args:
        num_classes: labels are below it; None = as many as the files name.
        longest: the longest side that an image may get, as a share of `pixels.image_size`, its short side.
        square: pad every batch to a square of `pixels.image_size`, for models that take one size only.
        augment: how training images are changed; an `Augment` (augment=none) leaves them as they are.
    """

    def __init__(
        self,
        *,
        num_classes: int | None,
        longest: float,
        square: bool,
        pixels: Pixels,
        batches: Batches,
        augment: BoxAugment | Augment,
    ) -> None:
        if longest < 1 or (square and longest != 1):
            raise ConfigError(
                f"data.longest={longest} data.square={square}: the longest side is a share of the image size, at least "
                "1, and 1 where batches are square; use data.longest=1.0"
            )
        super().__init__(num_classes=num_classes, pixels=pixels, batches=batches, augment=augment)  # type: ignore[arg-type]
        frame = Frame(short=pixels.image_size, longest=round(longest * pixels.image_size), exact=square)
        self.sampling = self.boxes = Boxes(frame, augment if isinstance(augment, BoxAugment) else None, square)

    def read_boxes_image(self, path: str | Path) -> Example:
        """A photograph as (image uint8 (C, h, w), target without objects). Raises DataError."""
        image = open_image(path, channels=self.channels, max_pixels=self.pixels.max_pixels)
        resized = self.boxes.frame.evaluation(image)
        sizes = {"size": torch.tensor(resized.shape[-2:]), "original_size": torch.tensor([image.height, image.width])}
        return resized, sizes

    def batch(self, samples: list[Example]) -> tuple[Tensor, list[Target]]:
        """Photographs of `read_boxes_image` as one batch, on the CPU."""
        pad = Pad(replace(self._feed(training=False), device=torch.device("cpu")), square=self.boxes.square)
        step = Share(0, torch.arange(len(samples)))
        return pad.finish(pad.collate(samples, step), step)

    def sample(self, split: str, count: int, *, seed: int) -> NoReturn:
        raise ConfigError(
            "an analysis looks at images with a class each and this data set has none; it needs an image set; use"
            " data=digits, cifar10, cifar100, imagenet or folder"
        )
