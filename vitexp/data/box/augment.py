"""The transforms of an image with boxes: DETR's multi-scale training, and the evaluation resize (DETR, section 4).

Training flips; then, with even chances, resizes to a random short side, or resizes to a middling one, crops at random
and resizes again. Sizes are shares of `data.image_size`: at 800 they are the authors' pixels. torchvision.transforms.v2
moves image and boxes together and draws from torch's generator: the caller seeds it for each sample.

A crop keeps every box of which something is left, however little, as the authors do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode, functional

from vitexp.data.file.image import to_tensor
from vitexp.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BoxAugment:
    """Settings of the training augmentation.

    flip_rate: probability of a mirror image; scales: short sides to choose from; crop_rate: probability of a crop;
    crop_scales: short sides before a crop; crop_range: smallest and largest side of a crop. All sides are shares of
    the image size.
    """

    flip_rate: float
    scales: Sequence[float]
    crop_rate: float
    crop_scales: Sequence[float]
    crop_range: Sequence[float]

    def __post_init__(self) -> None:
        for key in ("flip_rate", "crop_rate"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"augment.{key}={getattr(self, key)} is out of range; allowed is 0 to 1; use 0.5")
        sides = [*self.scales, *self.crop_scales, *self.crop_range]
        if not self.scales or not self.crop_scales or len(self.crop_range) != 2 or min(sides) <= 0:
            raise ConfigError(
                "augment.scales, crop_scales and crop_range are shares of the image size, above 0, crop_range two of "
                "them; use augment=detection for the published ones"
            )


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Sizes of the images that a detector gets: the short side, the longest that the other may become, in pixels.

    `exact` keeps to the longest side to the pixel; the authors' rounding may go one or two beyond.
    """

    short: int
    longest: int
    exact: bool = False

    def evaluation(self, image: Image.Image) -> Tensor:
        """A Pillow image as uint8 (C, h, w), resized by Pillow as the authors do."""
        size = self._size(image.height, image.width, self.short, self.longest)
        return to_tensor(functional.resize(image, size, interpolation=InterpolationMode.BILINEAR))

    def training(self, image: Tensor, boxes_xyxy: Tensor, augment: BoxAugment) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (C, H, W) and corners (n, 4) in its pixels: the new image, the boxes left, and their places in n."""
        height, width = image.shape[-2:]
        pair: tuple[Any, ...] = (
            tv_tensors.Image(image),
            tv_tensors.BoundingBoxes(boxes_xyxy, format="XYXY", canvas_size=(height, width)),
        )
        if _chance(augment.flip_rate):
            pair = tuple(functional.horizontal_flip(item) for item in pair)
        if _chance(augment.crop_rate):
            pair = self._resized(pair, _choice(augment.crop_scales), limited=False)
            pair = self._cropped(pair, augment.crop_range)
        image, boxes = self._resized(pair, _choice(augment.scales), limited=True)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1).nonzero().flatten()
        return image.as_subclass(Tensor), boxes.as_subclass(Tensor)[kept], kept

    def _resized(self, pair: tuple[Any, ...], share: float, *, limited: bool) -> tuple[Any, ...]:
        height, width = pair[0].shape[-2:]
        longest = self.longest if limited else max(height, width) * self.short
        size = self._size(height, width, max(1, round(share * self.short)), longest)
        image = functional.resize(pair[0], size, interpolation=InterpolationMode.BILINEAR, antialias=True)
        return image, functional.resize(pair[1], size)

    def _size(self, height: int, width: int, short: int, longest: int) -> list[int]:
        size = fit_size(height, width, short, longest)
        return [min(side, longest) for side in size] if self.exact else list(size)

    def _cropped(self, pair: tuple[Any, ...], sides: Sequence[float]) -> tuple[Any, ...]:
        height, width = pair[0].shape[-2:]
        low, high = (max(1, round(side * self.short)) for side in sides)
        crop_height, crop_width = (_whole(min(low, side), min(high, side)) for side in (height, width))
        top, left = _whole(0, height - crop_height), _whole(0, width - crop_width)
        image, boxes = (functional.crop(item, top, left, crop_height, crop_width) for item in pair)
        return image, functional.clamp_bounding_boxes(boxes)


def fit_size(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """(height, width) with the short side at `short`, or less where the other would be above `longest`."""
    smaller, larger = min(height, width), max(height, width)
    if larger / smaller * short > longest:
        short = max(1, round(longest * smaller / larger))
    other = max(short, int(short * larger / smaller))
    return (other, short) if width < height else (short, other)


def _chance(rate: float) -> bool:
    return bool(torch.rand(()) < rate)


def _choice(values: Sequence[float]) -> float:
    return values[int(torch.randint(len(values), ()))]


def _whole(low: int, high: int) -> int:
    """A whole number between two, both included."""
    return int(torch.randint(low, high + 1, ()))
