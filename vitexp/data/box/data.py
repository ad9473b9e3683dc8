"""What detection sets share: the sizes, the loaders, and one photograph as a detector gets it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitexp.data.augment.settings import Augment
from vitexp.data.base import Batches, ImageData, _cores
from vitexp.data.box.augment import BoxAugment, Frame
from vitexp.data.box.loader import BoxFeed, BoxLoader, Target
from vitexp.data.box.source import BoxSource
from vitexp.data.file.image import open_image
from vitexp.data.order import EpochOrder
from vitexp.data.pixels import Pixels
from vitexp.errors import ConfigError


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
        self.frame = Frame(short=pixels.image_size, longest=round(longest * pixels.image_size), exact=square)
        self.square = square
        self.box_augment = augment if isinstance(augment, BoxAugment) else None

    def read_boxes_image(self, path: str | Path) -> tuple[Tensor, Target]:
        """A photograph as (image uint8 (C, h, w), target without objects). Raises DataError."""
        image = open_image(path, channels=self.channels, max_pixels=self.pixels.max_pixels)
        resized = self.frame.evaluation(image)
        sizes = {"size": torch.tensor(resized.shape[-2:]), "original_size": torch.tensor([image.height, image.width])}
        return resized, sizes

    def batch(self, samples: list[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
        """Photographs of `read_boxes_image` as one batch, on the CPU."""
        images, targets = zip(*samples, strict=True)
        return self._feed(training=False, device=torch.device("cpu")).finish(list(images), list(targets))

    def _loader(self, split: str, *, training: bool) -> Any:
        source: Any = self.source(split)
        assert isinstance(source, BoxSource)
        batches = self.batches
        rank, world_size, device = self._place()
        order = EpochOrder(
            len(source),
            batches.size,
            seed=batches.seed,
            shuffle=training,
            drop_last=training,
            accumulate=batches.accumulate,
            rank=rank,
            world_size=world_size,
            start=self.start if training else (0, 0),
        )
        feed = self._feed(training=training, device=device)
        workers = min(batches.num_workers, _cores())
        return BoxLoader(source, order, feed, num_workers=workers, timeout=batches.timeout)

    def _feed(self, *, training: bool, device: torch.device) -> BoxFeed:
        return BoxFeed(
            pixels=self.pixels,
            frame=self.frame,
            augment=self.box_augment if training else None,
            training=training,
            square=self.square,
            seed=self.seed,
            device=device,
        )
