"""Patch embeddings: images become a map of tokens (ViT, section 3.1: Dosovitskiy et al. 2021).

A stem is built by `stem(in_channels=..., dim=...)`, maps images (B, C, H, W) to (B, D, H / patch_size, W / patch_size)
and offers `patch_size`, its whole stride in pixels.
"""

from torch import Tensor, nn

from vitexp.errors import ConfigError
from vitexp.layer.init import lecun_


class PatchEmbed(nn.Module):
    """One linear map for all patches that do not overlap, as a convolution with kernel = stride = patch_size."""

    def __init__(self, *, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        lecun_(self.projection)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(images)  # (B, D, h, w)


def patch_grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """The (h, w) in patches of an image of (H, W) pixels.

    Raises:
        ConfigError: a side is not a multiple of the patch size.
    """
    for side in image_size:
        if side % patch_size or side < patch_size:
            below = max(side // patch_size, 1) * patch_size
            raise ConfigError(
                f"an image side of {side} pixels does not split into patches of {patch_size}; "
                f"it must be a multiple of {patch_size}; use size={below} or size={below + patch_size}"
            )
    return image_size[0] // patch_size, image_size[1] // patch_size
