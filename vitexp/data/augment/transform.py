"""The transforms of one image file: the evaluation crop, and the training transform that workers run.

Evaluation is timm's and torchvision's protocol to the bit: Pillow's antialiased resize of the short side, centre crop,
normalisation. Training goes over tensors, which measured faster than Pillow, by torchvision.transforms.v2, which draws
from torch's generator: the caller seeds it for each sample.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from vitexp.data.augment.settings import CROP_RATIO, ERASED_AREA, ERASED_RATIO, Augment
from vitexp.data.file.image import to_tensor
from vitexp.data.pixels import Pixels

if TYPE_CHECKING:
    from torchvision.transforms import InterpolationMode


def evaluation_crop(image: Image.Image, pixels: Pixels) -> Tensor:
    """A Pillow image as uint8 (C, image_size, image_size), before normalisation."""
    from torchvision.transforms.v2 import functional

    short = math.floor(pixels.image_size / pixels.crop_pct)
    resized = functional.resize(image, [short], interpolation=_mode(pixels))
    return to_tensor(functional.center_crop(resized, [pixels.image_size, pixels.image_size]))


def training_transform(augment: Augment, pixels: Pixels) -> Callable[[Tensor], Tensor]:
    """The transform of a decoded image, uint8 (C, H, W), into an augmented one, uint8 (C, image_size, image_size)."""
    from torchvision.transforms import v2

    steps: list[Callable[[Tensor], Tensor]] = [_geometry(augment, pixels)]
    if augment.randaugment_ops:
        # torchvision counts magnitude in 31 bins from 0 to the end of each range, which is our 10.
        steps.append(
            v2.RandAugment(
                num_ops=augment.randaugment_ops,
                magnitude=round(3 * augment.randaugment_magnitude),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=pixels.mean_colour,
            )
        )
    if augment.erasing_rate:
        steps.append(
            v2.RandomErasing(
                p=augment.erasing_rate, scale=ERASED_AREA, ratio=ERASED_RATIO, value=tuple(pixels.mean_colour)
            )
        )
    return v2.Compose([*steps, augment.change])


def upsample(images: Tensor, pixels: Pixels) -> Tensor:
    """Float images (B, C, H, W) in 0..255 at `image_size`, by antialiased interpolation without overshoot."""
    if images.shape[-1] == images.shape[-2] == pixels.image_size:
        return images
    mode = "bilinear" if pixels.interpolation == "bilinear" else "bicubic"  # there is no lanczos on tensors
    size = [pixels.image_size, pixels.image_size]
    resized = torch.nn.functional.interpolate(images, size, mode=mode, antialias=True)
    return resized.clamp_(0, 255)


def _geometry(augment: Augment, pixels: Pixels) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2

    size, mode = pixels.image_size, _mode(pixels, tensor=True)
    if augment.geometry == "resized_crop_flip":
        crop = v2.RandomResizedCrop(
            size, scale=(augment.min_area, 1.0), ratio=CROP_RATIO, interpolation=mode, antialias=True
        )
        return v2.Compose([crop, v2.RandomHorizontalFlip(augment.flip_rate)])
    centre = [v2.Resize(math.floor(size / pixels.crop_pct), interpolation=mode, antialias=True), v2.CenterCrop(size)]
    if augment.geometry == "crop_flip":
        centre += [v2.RandomCrop(size, padding=augment.padding), v2.RandomHorizontalFlip(augment.flip_rate)]
    if augment.geometry == "affine":
        amounts = augment.affine
        turn = v2.RandomAffine(
            degrees=math.degrees(amounts.rotation),
            translate=(amounts.shift / 2, amounts.shift / 2),  # torchvision counts in widths
            scale=(1 - amounts.scale, 1 + amounts.scale),
            interpolation=v2.InterpolationMode.BILINEAR,
        )
        centre.append(turn)
    return v2.Compose(centre)


def _mode(pixels: Pixels, *, tensor: bool = False) -> "InterpolationMode":
    from torchvision.transforms import InterpolationMode

    return InterpolationMode("bicubic" if tensor and pixels.interpolation == "lanczos" else pixels.interpolation)
