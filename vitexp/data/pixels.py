"""The pixel format that a model is fed: size, channels, normalisation, and how evaluation crops a photograph."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitexp.errors import ConfigError

INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Settings of the images that a model sees.

    image_size: height and width in pixels; channels: 1 (grey) or 3 (RGB); mean, std: of each channel, for values in
    0..1; crop_pct: evaluation resizes the short side to floor(image_size / crop_pct) and cuts out the centre;
    interpolation: of that resize and of training crops; max_pixels: a larger file is an error; on_corrupt: `error`, or
    `skip` for files that cannot be read to be left out, after all have been looked at once.
    """

    image_size: int
    channels: int
    mean: list[float]
    std: list[float]
    crop_pct: float
    interpolation: str
    max_pixels: int
    on_corrupt: str = "error"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ConfigError(f"data.channels={self.channels}; images have 1 (grey) or 3 (RGB); use data.channels=3")
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ConfigError(
                f"data.mean={self.mean} data.std={self.std}; each needs {self.channels} numbers, std above 0; "
                f"use data.mean={[0.5] * self.channels} data.std={[0.5] * self.channels}"
            )
        if self.image_size < 1 or not 0 < self.crop_pct <= 1:
            raise ConfigError(
                f"data.image_size={self.image_size} data.crop_pct={self.crop_pct}; the size is at least 1, the share "
                f"above 0 and at most 1; use data.image_size=224 data.crop_pct=0.9"
            )
        if self.on_corrupt not in ("error", "skip"):
            raise ConfigError(
                f"data.on_corrupt={self.on_corrupt} is unknown; it is error or skip; use data.on_corrupt=skip to leave"
                " files out that cannot be read"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(
                f"data.interpolation={self.interpolation} is unknown; it is one of {', '.join(INTERPOLATIONS)}; "
                f"use data.interpolation=bicubic"
            )

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 or float 0..255 (B, C, H, W) -> float32 on the same device, by the arithmetic of ToTensor, Normalize.

        In that order of operations, so that the result equals timm's and torchvision's to the bit.
        """
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        shares = images.float().div_(255) if images.dtype == torch.uint8 else images.div(255)
        return shares.sub_(mean).div_(std)

    @property
    def mean_colour(self) -> list[float]:
        """The colour of erased boxes and of the outside of turned images: mean, as whole numbers in 0..255."""
        return [float(round(255 * value)) for value in self.mean]
