"""Batches of packed images for a model that takes `PackedImages`, and labels int64 (images,) in the order of images.

Pixels go from the stored image to its patches by one resize, whatever its size and aspect; nothing is cut to a square.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from vitexp import seeding
from vitexp.batch import PackedImages, grid_places, pack_images, to_patches
from vitexp.data.augment.on_device import FLIP
from vitexp.data.file.image import to_tensor
from vitexp.data.loader import Collation, Feed, Source, Transform
from vitexp.data.pack.drop import kept_tokens
from vitexp.data.pack.order import PackOrder, Sequences
from vitexp.errors import ConfigError

# Patches (n, C * P * P), places (n, 2) and grid of an image.
Tokens = tuple[Tensor, Tensor, tuple[int, int]]


class PackTransform(Transform[Sequences, Tokens]):
    """A sample is the tokens of an image as it is shown in the epoch; a set in memory is augmented at its own size.

    A worker plans each epoch for itself.
    """

    device = torch.device("cpu")

    def __init__(self, feed: Feed, order: PackOrder, source: Source) -> None:
        self.feed, self.order, self.source = feed, order, source
        if feed.augment is not None and (feed.augment.mixup or feed.augment.cutmix):
            raise ConfigError(
                f"augment.mixup={feed.augment.mixup} augment.cutmix={feed.augment.cutmix} mix images of one size and"
                " data.sampler=packed has many; use augment=basic, or augment.mixup=0 augment.cutmix=0"
            )

    def read(self, position: int, *, epoch: int, step: Sequences) -> Tokens:
        settings = self.feed.settings(epoch)
        if settings is None:
            return self._tokens(to_tensor(self.source.open(position, self.feed.pixels)), position, epoch)
        image = self.source.decode(position, self.feed.pixels)
        if settings.geometry in ("crop_flip", "resized_crop_flip"):
            key = self.order.plan(epoch)[0].keys[position : position + 1]
            image = image.flip(-1) if bool(seeding.uniform(key, FLIP) < settings.flip_rate) else image
        if settings.changes:
            seeding.seed_sample(self.feed.batches.seed, epoch, int(self.source.keys[position]))
            image = settings.change(image)
        return self._tokens(image, position, epoch)

    def from_memory(self, images: Tensor, *, epoch: int, step: Sequences) -> list[Tokens]:
        pairs = zip(images, step.positions.tolist(), strict=True)
        return [self._tokens(image, position, epoch) for image, position in pairs]

    def _tokens(self, image: Tensor, position: int, epoch: int) -> Tokens:
        """The tokens of an image (C, H, W) in 0..255."""
        shown, _ = self.order.plan(epoch)
        patch_size = self.order.packing.patch_size
        top, left, height, width = shown.boxes[position].tolist()
        pixels = image[:, top : top + height, left : left + width].float()
        grid = (int(shown.grids[position, 0]), int(shown.grids[position, 1]))
        size = [side * patch_size for side in grid]
        if list(pixels.shape[1:]) != size:
            mode = "bilinear" if self.feed.pixels.interpolation == "bilinear" else "bicubic"
            pixels = F.interpolate(pixels[None], size, mode=mode, antialias=True)[0].clamp_(0, 255)
        patches, places = to_patches(pixels, patch_size), grid_places(grid)
        kept = kept_tokens(int(shown.keys[position]), len(patches), int(shown.kept[position]))
        return (patches, places, grid) if kept is None else (patches[kept], places[kept], grid)


class Pack(Collation[Sequences, Tokens, PackedImages, tuple[PackedImages, Tensor]]):
    """Images one after the other in their sequences; patches are normalised, and zero where padded."""

    def __init__(self, feed: Feed, order: PackOrder, labels: Tensor) -> None:
        self.feed, self.order, self.labels = feed, order, labels

    def collate(self, samples: Sequence[Tokens] | Tensor, step: Sequences) -> PackedImages:
        tokens = iter(samples)
        rows = [[next(tokens) for _ in row] for row in step.rows]
        return pack_images(rows, length=self.order.length, patch_size=self.order.packing.patch_size, weight=step.weight)

    def finish(self, collated: PackedImages, step: Sequences) -> tuple[PackedImages, Tensor]:
        batch = collated.to(self.feed.device)
        patches = batch.patches.unflatten(-1, (self.feed.pixels.channels, -1, 1))  # (B, L, C, P * P, 1)
        patches = self.feed.pixels.normalise(patches).flatten(2)
        batch = replace(batch, patches=patches.masked_fill_((batch.owner < 0)[..., None], 0.0))
        return batch, self.labels[step.positions].to(self.feed.device)
