"""A convolutional stem, with which small nets train better (Xiao et al. 2021, "Early Convolutions Help ...")."""

from collections.abc import Sequence

from torch import Tensor, nn

from vitexp.errors import ConfigError
from vitexp.layer.conv_norm import ConvNorm
from vitexp.layer.init import lecun_


class ConvStem(nn.Module):
    """Convolutions 3x3 with batch norm and ReLU, one for each of `channels`, then a linear map of what is left.

    The last convolutions halve the image, as many as `patch_size` asks for; where it asks for more halvings than there
    are convolutions, the linear map takes patches of the rest. So channels=[32, 64] with patch_size=2 has strides 1
    and 2 and a 1x1 map. (B, C, H, W) -> (B, D, H / patch_size, W / patch_size).
    """

    def __init__(self, *, in_channels: int, dim: int, channels: Sequence[int], patch_size: int) -> None:
        super().__init__()
        if patch_size < 1 or patch_size & (patch_size - 1):
            raise ConfigError(
                f"model.stem.patch_size={patch_size} cannot be reached by halving; a convolutional stem takes a power "
                "of two; use model.stem.patch_size=2, 4, 8 or 16"
            )
        self.patch_size = patch_size
        num_halvings = min(patch_size.bit_length() - 1, len(channels))
        layers: list[nn.Module] = []
        for index, out_channels in enumerate(channels):
            stride = 2 if index >= len(channels) - num_halvings else 1
            layers.append(ConvNorm(in_channels, out_channels, 3, stride=stride, activation=nn.ReLU))
            in_channels = out_channels
        self.layers = nn.Sequential(*layers)
        rest = patch_size >> num_halvings
        self.projection = nn.Conv2d(in_channels, dim, rest, stride=rest)
        lecun_(self.projection)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(self.layers(images))  # (B, D, h, w)
