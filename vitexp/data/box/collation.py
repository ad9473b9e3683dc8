"""Batches for detection: (images, targets), images of different sizes padded at the right and at the bottom.

images: float32 (B, C, H, W) normalised on the training device, 0 where padded. targets: a dict an image,

- `size` (2,): (height, width) of the image inside the batch; what is beyond is padding;
- `labels` (n,), `boxes_cxcywh` (n, 4), shares of the unpadded image: what the loss wants, without crowds;
- `image_id` (), `original_size` (2,): of the file that boxes refer to;
- `truth`, in evaluation only: `labels`, `boxes_xyxy` in original pixels, `area` and `iscrowd`, crowds included.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitexp import seeding
from vitexp.data.box.augment import BoxAugment, Frame
from vitexp.data.box.source import BoxSource
from vitexp.data.file.image import decode_image, open_image
from vitexp.data.loader import ALL_FILES, FolderLoader, Key, _Failure, _Keys
from vitexp.data.order import EpochOrder
from vitexp.data.pixels import Pixels
from vitexp.detection.box import to_cxcywh
from vitexp.detection.padding import padding_of
from vitexp.errors import DataError

Target = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BoxFeed:
    """How a loader turns files into batches.

    augment: None outside training, and for training without any. square: whether every batch is padded to a square of
    `pixels.image_size`, for models that take one size only; else to its largest image.
    """

    pixels: Pixels
    frame: Frame
    augment: BoxAugment | None
    training: bool
    square: bool
    seed: int
    device: torch.device

    def finish(self, images: list[Tensor], targets: list[Target]) -> tuple[Tensor, list[Target]]:
        """Pad, move and normalise."""
        height, width = self.shape(images)
        batch = torch.zeros(len(images), self.pixels.channels, height, width, dtype=torch.uint8)
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        pixels = self.pixels.normalise(batch.to(self.device, non_blocking=True))
        padding = padding_of([target["size"] for target in targets], (height, width))
        if padding is not None:
            pixels = pixels.masked_fill_(padding[:, None].to(self.device), 0.0)
        return pixels, targets

    def shape(self, images: list[Tensor]) -> tuple[int, int]:
        """Height and width of the batch."""
        if self.square:
            return self.pixels.image_size, self.pixels.image_size
        return max(image.shape[1] for image in images), max(image.shape[2] for image in images)


class BoxLoader(FolderLoader):
    """What Lightning takes batches from; the same with any number of workers, none included."""

    def __init__(
        self, source: BoxSource, order: EpochOrder, feed: BoxFeed, *, num_workers: int, timeout: float
    ) -> None:
        self.sampler, self.box_feed = order, feed
        self.num_workers, self.timeout = num_workers, timeout
        self.loader = DataLoader(
            _BoxFiles(source, feed),
            batch_sampler=_Keys(order),
            num_workers=num_workers,
            collate_fn=list,
            pin_memory=feed.device.type == "cuda",
            persistent_workers=num_workers > 0 and feed.training,
            timeout=timeout if num_workers > 0 else 0,
            generator=torch.Generator(),  # else each iterator draws from the global one
        )

    def __iter__(self) -> Iterator[Any]:
        batches: Any = iter(self.loader)
        while (item := self._next(batches)) is not None:
            samples: Any = item
            for sample in samples:
                if isinstance(sample, _Failure):
                    raise DataError(f"{sample.message}{ALL_FILES}")
            images, targets = zip(*samples, strict=True)
            yield self.box_feed.finish(list(images), list(targets))


class _BoxFiles(Dataset[Any]):
    """Reads one file; lives in the workers."""

    def __init__(self, source: BoxSource, feed: BoxFeed) -> None:
        self.source, self.feed = source, feed

    def __getitem__(self, key: Key) -> tuple[Tensor, Target] | _Failure:
        _, epoch, position = key
        try:
            return self._train(epoch, position) if self.feed.training else self._evaluate(position)
        except DataError as error:
            return _Failure(f"file {position}: {error}")

    def _train(self, epoch: int, position: int) -> tuple[Tensor, Target]:
        source, pixels, augment = self.source, self.feed.pixels, self.feed.augment
        if augment is None:
            image, target = self._evaluate(position)
            del target["truth"]
            return image, target
        seeding.seed_sample(self.feed.seed, epoch, int(source.keys[position]))
        image = decode_image(source.path(position), channels=pixels.channels, max_pixels=pixels.max_pixels)
        labels, boxes, original = self._objects(position)
        # Boxes refer to the size in the annotations; a file of another resolution is as good.
        stretch = torch.tensor(image.shape[-2:]) / original
        image, boxes, kept = self.feed.frame.training(image, boxes * stretch.flip(0).repeat(2), augment)
        return image, self._target(position, image, labels[kept], boxes, torch.tensor(image.shape[-2:]))

    def _evaluate(self, position: int) -> tuple[Tensor, Target]:
        source, pixels = self.source, self.feed.pixels
        path = source.path(position)
        image = self.feed.frame.evaluation(open_image(path, channels=pixels.channels, max_pixels=pixels.max_pixels))
        labels, boxes, original = self._objects(position)
        rows = source.objects(position)
        target = self._target(position, image, labels, boxes, original)
        target["truth"] = {
            "labels": source.labels[rows],
            "boxes_xyxy": source.boxes[rows],
            "area": source.areas[rows],
            "iscrowd": source.crowds[rows].long(),
        }
        return image, target

    def _objects(self, position: int) -> tuple[Tensor, Tensor, Tensor]:
        """Labels and boxes without crowds, and the size that boxes refer to."""
        rows = self.source.objects(position)
        single = ~self.source.crowds[rows]
        return self.source.labels[rows][single], self.source.boxes[rows][single], self.source.sizes[position]

    def _target(self, position: int, image: Tensor, labels: Tensor, boxes: Tensor, canvas: Tensor) -> Target:
        return {
            "size": torch.tensor(image.shape[-2:]),
            "labels": labels,
            "boxes_cxcywh": to_cxcywh(boxes / canvas.flip(0).repeat(2)).float(),
            "image_id": self.source.ids[position],
            "original_size": self.source.sizes[position],
        }
