"""Batches for detection: (images, targets), images of different sizes padded at the right and at the bottom.

images: float32 (B, C, H, W) normalised on the training device, 0 where padded. targets: a dict an image,

- `size` (2,): (height, width) of the image inside the batch; what is beyond is padding;
- `labels` (n,), `boxes_cxcywh` (n, 4), shares of the unpadded image: what the loss wants, without crowds;
- `image_id` (), `original_size` (2,): of the file that boxes refer to;
- `truth`, in evaluation only: `labels`, `boxes_xyxy` in original pixels, `area` and `iscrowd`, crowds included.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitexp import seeding
from vitexp.data.box.augment import BoxAugment, Frame
from vitexp.data.box.source import BoxSource
from vitexp.data.loader import Collation, Feed, Transform
from vitexp.data.order import Share
from vitexp.detection.box import to_cxcywh
from vitexp.detection.padding import padding_of

Target = dict[str, Any]
Example = tuple[Tensor, Target]


class BoxTransform(Transform[Share, Example]):
    """A sample is an image uint8 (C, h, w) and its target. `augment` is None for training without any."""

    def __init__(self, feed: Feed, source: BoxSource, frame: Frame, augment: BoxAugment | None) -> None:
        self.feed, self.source, self.frame, self.augment = feed, source, frame, augment

    def read(self, position: int, *, epoch: int, step: Share) -> Example:
        if not self.feed.training:
            return self._evaluate(position)
        if self.augment is None:
            image, target = self._evaluate(position)
            del target["truth"]
            return image, target
        seeding.seed_sample(self.feed.batches.seed, epoch, int(self.source.keys[position]))
        image = self.source.decode(position, self.feed.pixels)
        labels, boxes, original = self._objects(position)
        # Boxes refer to the size in the annotations; a file of another resolution is as good.
        stretch = torch.tensor(image.shape[-2:]) / original
        image, boxes, kept = self.frame.training(image, boxes * stretch.flip(0).repeat(2), self.augment)
        return image, self._target(position, image, labels[kept], boxes, torch.tensor(image.shape[-2:]))

    def _evaluate(self, position: int) -> Example:
        source = self.source
        image = self.frame.evaluation(source.open(position, self.feed.pixels))
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


class Pad(Collation[Share, Example, tuple[Tensor, list[Target]], tuple[Tensor, list[Target]]]):
    """Images in the top left corners of a batch as large as its largest, or with `square` as `pixels.image_size`."""

    def __init__(self, feed: Feed, *, square: bool) -> None:
        self.feed, self.square = feed, square

    def collate(self, samples: Sequence[Example] | Tensor, step: Share) -> tuple[Tensor, list[Target]]:
        images, targets = zip(*samples, strict=True)
        side = self.feed.pixels.image_size
        height, width = (side if self.square else max(image.shape[axis] for image in images) for axis in (1, 2))
        batch = torch.zeros(len(images), self.feed.pixels.channels, height, width, dtype=torch.uint8)
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        return batch, list(targets)

    def finish(self, collated: tuple[Tensor, list[Target]], step: Share) -> tuple[Tensor, list[Target]]:
        batch, targets = collated
        pixels = self.feed.pixels.normalise(batch.to(self.feed.device, non_blocking=True))
        padding = padding_of([target["size"] for target in targets], (batch.shape[2], batch.shape[3]))
        if padding is not None:
            pixels = pixels.masked_fill_(padding[:, None].to(self.feed.device), 0.0)
        return pixels, targets
