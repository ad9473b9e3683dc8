"""The ResNet in front of a hybrid ViT (Dosovitskiy et al. 2021, sections 3.1 and 4.1; "Big Transfer", Kolesnikov 2020).

Weight-standardised convolutions, group norms, and bottlenecks that activate after the sum, as in the ViT authors' code.
timm's epsilon of the group norms, 1e-5, is in the configuration files; Flax has 1e-6 (features differ by 3e-6).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.errors import ConfigError
from vitexp.layer.init import lecun_
from vitexp.layer.std_conv import StdConv, same_padding


class ConvGroupNorm(nn.Module):
    """Group norm of a weight-standardised convolution: (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int, eps: float
    ) -> None:
        super().__init__()
        self.conv = StdConv(in_channels, out_channels, kernel_size, stride=stride)
        self.norm = nn.GroupNorm(groups, out_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    """relu(shortcut(x) + 1x1, 3x3 with the stride, 1x1 to 4 times the channels): (B, C, H, W) -> (B, 4 C', H', W').

    The last norm starts at zero: a fresh block is relu(shortcut(x)).
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int, groups: int, eps: float) -> None:
        super().__init__()
        out_channels = 4 * channels
        self.conv1 = ConvGroupNorm(in_channels, channels, 1, groups=groups, eps=eps)
        self.conv2 = ConvGroupNorm(channels, channels, 3, stride=stride, groups=groups, eps=eps)
        self.conv3 = ConvGroupNorm(channels, out_channels, 1, groups=groups, eps=eps)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = ConvGroupNorm(in_channels, out_channels, 1, stride=stride, groups=groups, eps=eps)
        nn.init.zeros_(self.conv3.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(self.shortcut(x) + self.conv3(y))


class ResNetStem(nn.Module):
    """Root, max-pool and stages of bottlenecks, then a linear map of patches of the last map.

    (B, C, H, W) -> (B, D, H / patch_size, W / patch_size). Published, the root, the pool and each stage but the first
    halve the map, and the patches take `projection` of its cells. For a smaller patch_size, halvings are dropped from
    the front (root, pool, stages; the pool goes with its stride), and only then the patches shrink: late stages see
    maps as small as published, early ones keep the detail that small images have.

    Args:
        depths: bottlenecks a stage, perhaps none.
        width: channels of the root; stage i has `width * 2**i`, times 4 after its last convolution.
        projection: published side of a patch, in cells of the last map.
        norm_groups: of every group norm.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        dim: int,
        depths: Sequence[int],
        width: int,
        projection: int,
        norm_groups: int,
        norm_eps: float,
        patch_size: int,
    ) -> None:
        super().__init__()
        strides, projection = shrink(patch_size, 2 + max(len(depths) - 1, 0), projection)
        self.patch_size = patch_size
        self.root = ConvGroupNorm(in_channels, width, 7, stride=strides[0], groups=norm_groups, eps=norm_eps)
        self.pool_stride = strides[1]
        # Not called stages: layers that learn at the stem's rate, whatever their depth here.
        self.units = nn.ModuleList()
        channels = width
        for index, depth in enumerate(depths):
            stage = nn.Sequential()
            for unit in range(depth):
                stride = strides[index + 1] if index and not unit else 1
                stage.append(Bottleneck(channels, width << index, stride=stride, groups=norm_groups, eps=norm_eps))
                channels = 4 * (width << index)
            self.units.append(stage)
        self.projection = nn.Conv2d(channels, dim, projection, stride=projection)
        lecun_(self.projection)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.root(images))
        if self.pool_stride > 1:
            padded, _ = same_padding(x, 3, self.pool_stride, value=-torch.inf)
            x = F.max_pool2d(padded, 3, self.pool_stride)
        for stage in self.units:
            x = stage(x)
        return self.projection(x)  # (B, D, h, w)


def shrink(patch_size: int, num_halvings: int, projection: int) -> tuple[list[int], int]:
    """The stride of each place that may halve, front first, and the patch's side in cells, for a whole stride.

    Raises:
        ConfigError: the stride cannot be reached by halving.
    """
    if patch_size < 1 or patch_size & (patch_size - 1):
        raise ConfigError(
            f"model.stem.patch_size={patch_size} cannot be reached by halving; a ResNet stem takes a power of two; "
            "use model.stem.patch_size=32, or 16, 8, 4 or 2 on small images"
        )
    cells = min(patch_size, projection)
    halvings = min((patch_size // cells).bit_length() - 1, num_halvings)
    return [1] * (num_halvings - halvings) + [2] * halvings, patch_size >> halvings
