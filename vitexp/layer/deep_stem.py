"""The convolutional stem of DeepViT-S and -L (Zhou et al. 2021, after T2T-ViT), as in the authors' code."""

from torch import Tensor, nn

from vitexp.errors import ConfigError
from vitexp.layer.conv_norm import ConvNorm


class DeepStem(nn.Module):
    """Convolutions 7x7 and 3x3 with batch norm and ReLU, then a linear map of patches that do not overlap.

    (B, C, H, W) -> (B, D, H / patch_size, W / patch_size). From the published 16 on, the first convolution halves the
    image and the patches have half of patch_size; below that, for small images, it keeps the image whole.
    """

    def __init__(self, *, in_channels: int, dim: int, channels: int, patch_size: int) -> None:
        super().__init__()
        stride = 2 if patch_size >= 16 else 1
        if patch_size < 1 or patch_size % stride:
            raise ConfigError(
                f"model.stem.patch_size={patch_size} cannot be reached: the first convolution halves the image from "
                "16 on, so that it must be even; use model.stem.patch_size=16, or 8, 4 or 2 on small images"
            )
        self.patch_size = patch_size
        self.conv1 = ConvNorm(in_channels, channels, 7, stride=stride, activation=nn.ReLU)
        self.conv2 = ConvNorm(channels, channels, 3, activation=nn.ReLU)
        self.projection = nn.Conv2d(channels, dim, patch_size // stride, stride=patch_size // stride)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(self.conv2(self.conv1(images)))  # (B, D, h, w)
