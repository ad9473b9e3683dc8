"""The settings of augmentation: conf/augment/*.yaml says how much, conf/data/*.yaml which geometry.

The batched form (on_device.py) and the per-file form (transform.py) read the same settings, and mean the same by
them: RandAugment (Cubuk et al. 2019), mixup (Zhang et al. 2017), CutMix (Yun et al. 2019), random erasing (Zhong et
al. 2017).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitexp.errors import ConfigError

GEOMETRIES = ("none", "affine", "crop_flip", "resized_crop_flip")

# Constants of the papers, which nobody tunes: share of the area erased and its aspect ratio (Zhong et al., section 3),
# aspect ratio of a resized crop (Szegedy et al. 2014).
ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 3.3)
CROP_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Amounts of `geometry=affine`, each drawn evenly from minus to plus.

    `rotation` in radians, `shift` in half widths, `scale` as a share of 1.
    """

    rotation: float
    shift: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Settings of the training augmentation.

    geometry: `none`; `affine` (small rotation, shift and scale; digits); `crop_flip` (pad with black, crop back, flip;
        CIFAR); `resized_crop_flip` (a random box of the image at least `min_area` of it, stretched; photographs).
    padding: pixels of `crop_flip`, at the native size of the set.
    flip_rate: probability of a mirror image in `crop_flip` and `resized_crop_flip`.
    randaugment_ops: operations on each image, 0 is off; randaugment_magnitude: 0..10, on the scale of the paper's code
        and of timm, where 10 turns by 30 degrees.
    erasing_rate: probability that a box of the image is painted over with the mean colour.
    mixup, cutmix: alpha of the Beta distribution of the mixing share, 0 is off; with both on, each batch takes one.
    label_smoothing: applied by the task's loss; here so that one word sets a whole recipe.
    off_epochs: in that many last epochs RandAugment, erasing, mixup and CutMix are off.
    """

    geometry: str
    padding: int
    min_area: float
    flip_rate: float
    affine: Affine
    randaugment_ops: int
    randaugment_magnitude: float
    erasing_rate: float
    mixup: float
    cutmix: float
    label_smoothing: float
    off_epochs: int

    def __post_init__(self) -> None:
        if self.geometry not in GEOMETRIES:
            raise ConfigError(
                f"augment.geometry={self.geometry} is unknown; it is one of {', '.join(GEOMETRIES)}; "
                f"use augment.geometry=none to leave images in place"
            )
        top = {"min_area": 1, "flip_rate": 1, "erasing_rate": 1, "label_smoothing": 1, "randaugment_magnitude": 10}
        for key, limit in top.items():
            if not 0 <= getattr(self, key) <= limit:
                raise ConfigError(
                    f"augment.{key}={getattr(self, key)} is out of range; allowed is 0 to {limit}; "
                    f"use augment=basic for the usual values"
                )
        for key in ("padding", "randaugment_ops", "mixup", "cutmix", "off_epochs"):
            if getattr(self, key) < 0:
                raise ConfigError(f"augment.{key}={getattr(self, key)} is negative; use augment.{key}=0 for none")

    def change(self, image: Tensor) -> Tensor:
        """A training image, uint8 (C, H, W) on the CPU, after all that is named above; a subclass may change more.

        Its random numbers come from torch's generator, which is seeded for the sample and the epoch.
        """
        return image

    @property
    def changes(self) -> bool:
        """Whether `change` is a subclass's own."""
        return type(self).change is not Augment.change

    def at(self, epoch: int, epochs: int) -> "Augment":
        """The settings in force in an epoch of a run of `epochs`: the strong parts stop `off_epochs` before the end."""
        if self.off_epochs == 0 or epoch < epochs - self.off_epochs:
            return self
        return replace(self, randaugment_ops=0, erasing_rate=0.0, mixup=0.0, cutmix=0.0)


def mix(images: Tensor, labels: Tensor, *, mixup: float, cutmix: float, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with its neighbour by mixup or CutMix.

    images (B, C, H, W), labels int64 (B,) -> images, soft labels (B, K) whose rows sum to 1. One share is drawn for
    the batch, from torch's generator: seed it by the step before.
    """
    from torchvision.transforms import v2

    pick_mixup = cutmix == 0 or (mixup > 0 and bool(torch.rand(()) < 0.5))
    mixer = v2.MixUp(alpha=mixup, num_classes=num_classes) if pick_mixup else None
    mixer = mixer or v2.CutMix(alpha=cutmix, num_classes=num_classes)
    return mixer(images, labels)
