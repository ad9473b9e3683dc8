"""Images of one size a batch: float32 (B, C, S, S) normalised on the training device.

Labels are int64 (B,), or float (B, K) under mixup and CutMix, or bool (B, K) where several are right.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vitexp import seeding
from vitexp.data.augment.settings import Augment, mix
from vitexp.data.augment.transform import evaluation_crop, training_transform, upsample
from vitexp.data.loader import Collation, Feed, Source, Transform
from vitexp.data.order import EpochOrder, Share
from vitexp.data.pixels import Pixels


class ImageTransform(Transform[Share, Tensor]):
    """A sample is a uint8 (C, S, S), of a set in memory resized on the training device, if at all, and then a float."""

    def __init__(self, feed: Feed, order: EpochOrder, source: Source) -> None:
        self.feed, self.order, self.source, self.device = feed, order, source, feed.device
        self.transforms: dict[tuple[Augment, int], Callable[[Tensor], Tensor]] = {}

    def read(self, position: int, *, epoch: int, step: Share) -> Tensor:
        pixels, settings = self._pixels(epoch, step), self.feed.settings(epoch)
        if settings is None:
            return evaluation_crop(self.source.open(position, pixels), pixels)
        if (settings, pixels.image_size) not in self.transforms:
            self.transforms[settings, pixels.image_size] = training_transform(settings, pixels)
        seeding.seed_sample(self.feed.batches.seed, epoch, int(self.source.keys[position]))
        return self.transforms[settings, pixels.image_size](self.source.decode(position, pixels))

    def from_memory(self, images: Tensor, *, epoch: int, step: Share) -> Tensor:
        images, pixels = images.to(self.device, non_blocking=True), self._pixels(epoch, step)
        if images.shape[-2:] == (pixels.image_size, pixels.image_size):
            return images
        return upsample(images.float(), pixels)

    def _pixels(self, epoch: int, step: Share) -> Pixels:
        """The pixels of a batch, which may have a size of its own."""
        size = self.order.image_size(epoch, step.number)
        return self.feed.pixels if size is None else replace(self.feed.pixels, image_size=size)


class Stack(Collation[Share, Tensor, Tensor, tuple[Tensor, Tensor]]):
    """Images side by side, normalised, and mixed where mixup or CutMix is on."""

    def __init__(self, feed: Feed, order: EpochOrder, labels: Tensor) -> None:
        self.feed, self.order, self.labels = feed, order, labels

    def collate(self, samples: Sequence[Tensor] | Tensor, step: Share) -> Tensor:
        return samples if isinstance(samples, Tensor) else torch.stack(list(samples))

    def finish(self, collated: Tensor, step: Share) -> tuple[Tensor, Tensor]:
        feed, order = self.feed, self.order
        images = feed.pixels.normalise(collated.to(feed.device, non_blocking=True))
        labels = self.labels[step.positions].to(feed.device, non_blocking=True)
        settings = feed.settings(order.epoch)
        if settings is None or (settings.mixup == 0 and settings.cutmix == 0):
            return images, labels
        seeding.seed_step(feed.batches.seed, order.step(step.number), rank=order.rank, stream=seeding.BATCH)
        return mix(images, labels, mixup=settings.mixup, cutmix=settings.cutmix, num_classes=feed.num_classes)
