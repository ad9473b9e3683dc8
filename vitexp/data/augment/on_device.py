"""Augmentation of a set in memory: batches of uint8 images at once, on the device that trains.

Every draw is a function of (seed, epoch, sample), so an image is augmented the same in whatever batch it lands, on
whatever device. Draws are made on the CPU; only their results travel.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vitexp import seeding
from vitexp.data.augment.randaugment import randaugment
from vitexp.data.augment.settings import CROP_RATIO, ERASED_AREA, ERASED_RATIO, Affine, Augment
from vitexp.data.augment.warp import warp
from vitexp.data.pixels import Pixels

# The number of each draw of a sample's key; RandAugment's operation i takes RANDAUGMENT + 2 i and the next.
ROW, COLUMN, FLIP, AREA, RATIO = 0, 1, 2, 3, 4
ROTATION, SCALE = 5, 6
ERASE, ERASE_AREA, ERASE_RATIO, ERASE_ROW, ERASE_COLUMN = 7, 8, 9, 10, 11
RANDAUGMENT = 32


class BatchAugment:
    """Cut augmented images out of a table that holds the whole set.

    images uint8 (N, C, H, W) on the training device, keys int64 (N,) on the CPU: what names a sample for its draws.
    """

    def __init__(self, images: Tensor, keys: Tensor, *, augment: Augment, pixels: Pixels, seed: int) -> None:
        self.keys, self.augment, self.pixels, self.seed = keys, augment, pixels, seed
        self.size: tuple[int, int] = (images.shape[-2], images.shape[-1])
        pad = augment.padding if augment.geometry == "crop_flip" else 0
        self.table = functional.pad(images, [pad] * 4) if pad else images

    def __call__(self, positions: Tensor, epoch: int, augment: Augment) -> Tensor:
        """The samples at `positions` (B,) as uint8 (B, C, H, W), with the settings in force in that epoch."""
        keys = seeding.sample_keys(self.seed, epoch, self.keys[positions])
        images = self._geometry(positions, keys)
        if augment.randaugment_ops:
            images = randaugment(
                images,
                keys,
                ops=augment.randaugment_ops,
                magnitude=augment.randaugment_magnitude,
                fill=self.pixels.mean_colour,
                first_draw=RANDAUGMENT,
            )
        if augment.erasing_rate:
            images = erase(images, keys, rate=augment.erasing_rate, colour=self.pixels.mean_colour)
        return self._changed(images, self.keys[positions], epoch, augment) if augment.changes else images

    def _changed(self, images: Tensor, numbers: Tensor, epoch: int, augment: Augment) -> Tensor:
        """Images after an augmentation of the user's own, which takes them one by one, as the workers do."""
        changed = []
        for image, number in zip(images.cpu(), numbers.tolist(), strict=True):
            seeding.seed_sample(self.seed, epoch, number)
            changed.append(augment.change(image))
        return torch.stack(changed).to(images.device)

    def _geometry(self, positions: Tensor, keys: Tensor) -> Tensor:
        settings = self.augment
        if settings.geometry == "crop_flip":
            span = 2 * settings.padding + 1
            rows, columns = ((seeding.uniform(keys, draw) * span).long() for draw in (ROW, COLUMN))
            mirrored = seeding.uniform(keys, FLIP) < settings.flip_rate
            return crop_flip(self.table, self.size, positions, rows, columns, mirrored)
        images = self.table[positions.to(self.table.device)]
        if settings.geometry == "affine":
            return warp(images, affine_maps(keys, settings.affine))
        if settings.geometry == "resized_crop_flip":
            return warp(images, box_maps(keys, min_area=settings.min_area, flip_rate=settings.flip_rate))
        return images


def crop_flip(
    table: Tensor, size: tuple[int, int], positions: Tensor, rows: Tensor, columns: Tensor, mirrored: Tensor
) -> Tensor:
    """Windows of `size` at (rows, columns) of the padded images at `positions`, some mirrored; all but `table` (B,).

    On the CPU by NumPy, whose copy of a strided window is measured at twice torch's speed or more.
    """
    cut = _cut_by_numpy if table.device.type == "cpu" else _cut_by_torch
    return cut(table, size, positions, rows, columns, mirrored)


def _cut_by_numpy(
    table: Tensor, size: tuple[int, int], positions: Tensor, rows: Tensor, columns: Tensor, mirrored: Tensor
) -> Tensor:
    windows = np.lib.stride_tricks.sliding_window_view(table.numpy(), size, axis=(2, 3))
    images = windows[positions.numpy(), :, rows.numpy(), columns.numpy()]
    flipped = np.flatnonzero(mirrored.numpy())
    images[flipped] = images[flipped][..., ::-1]
    return torch.from_numpy(images)


def _cut_by_torch(
    table: Tensor, size: tuple[int, int], positions: Tensor, rows: Tensor, columns: Tensor, mirrored: Tensor
) -> Tensor:
    device = table.device
    windows = table.unfold(2, size[0], 1).unfold(3, size[1], 1)
    images = windows[positions.to(device), :, rows.to(device), columns.to(device)]
    return torch.where(mirrored.to(device).view(-1, 1, 1, 1), images.flip(-1), images)


def affine_maps(keys: Tensor, amounts: Affine) -> Tensor:
    """One small rotation, scale and shift a sample: (B, 2, 3) from output to input, in half widths."""
    angle = _between(keys, ROTATION, -amounts.rotation, amounts.rotation)
    scale = _between(keys, SCALE, 1 - amounts.scale, 1 + amounts.scale)
    right = _between(keys, COLUMN, -amounts.shift, amounts.shift)
    down = _between(keys, ROW, -amounts.shift, amounts.shift)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    return torch.stack([cosine, -sine, right, sine, cosine, down], 1).view(-1, 2, 3)


def box_maps(keys: Tensor, *, min_area: float, flip_rate: float) -> Tensor:
    """One box a sample, of area min_area..1 and ratio 3/4..4/3, stretched over the image and maybe mirrored."""
    area = _between(keys, AREA, min_area, 1.0)
    ratio = _between(keys, RATIO, math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    right = _between(keys, COLUMN, -1.0, 1.0) * (1 - width)
    down = _between(keys, ROW, -1.0, 1.0) * (1 - height)
    width = torch.where(seeding.uniform(keys, FLIP) < flip_rate, -width, width)
    none = torch.zeros_like(width)
    return torch.stack([width, none, right, none, height, down], 1).view(-1, 2, 3)


def erase(images: Tensor, keys: Tensor, *, rate: float, colour: list[float]) -> Tensor:
    """Paint a box of some images over with one colour (random erasing); a box too long for the image is cut short."""
    height, width = images.shape[-2:]
    area = _between(keys, ERASE_AREA, *ERASED_AREA) * height * width
    ratio = _between(keys, ERASE_RATIO, math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])).exp()
    rows = _span(keys, ERASE_ROW, (area * ratio).sqrt(), height)  # (B, H)
    columns = _span(keys, ERASE_COLUMN, (area / ratio).sqrt(), width)  # (B, W)
    rows &= (seeding.uniform(keys, ERASE) < rate).unsqueeze(1)
    inside = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1).to(images.device)  # (B, 1, H, W)
    paint = torch.tensor(colour, dtype=torch.uint8, device=images.device).view(-1, 1, 1)
    return torch.where(inside, paint, images)


def _span(keys: Tensor, draw: int, length: Tensor, size: int) -> Tensor:
    """True where a pixel of `size` lies in a stretch of `length` (B,) that starts anywhere it fits: bool (B, size)."""
    length = length.round().long().clamp(1, size)
    start = (seeding.uniform(keys, draw) * (size - length + 1)).long()
    offset = torch.arange(size) - start.unsqueeze(1)
    return (offset >= 0) & (offset < length.unsqueeze(1))


def _between(keys: Tensor, draw: int, low: float, high: float) -> Tensor:
    return low + (high - low) * seeding.uniform(keys, draw)
