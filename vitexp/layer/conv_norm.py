"""Convolution, batch norm and activation as one brick, which evaluation folds into one biased convolution.

The norm is affine in evaluation, so W' = W gamma / sqrt(var + eps) and b' = beta - mean gamma / sqrt(var + eps)
(Jacob et al. 2018, section 3.2) give the same output with one pass over the map less.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitexp.layer.point_conv import PointConv


class ConvNorm(nn.Module):
    """norm(conv(x)), then the activation if there is one: (B, C, H, W) -> (B, C', H / stride, W / stride).

    The convolution has no bias and pads by half its (odd) kernel. `fuse` folds the norm into it. With `zero` the norm's
    weight starts at 0, so that a residual branch that ends in this brick starts as nothing (Goyal et al. 2017, 5.1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Callable[[], nn.Module] | None = None,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.conv: nn.Conv2d
        if kernel_size == stride == groups == 1:
            self.conv = PointConv(in_channels, out_channels, bias=False)
        else:
            self.conv = nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                groups=groups,
                bias=False,
            )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        if zero:
            nn.init.zeros_(self.norm.weight)
        self.activation = activation() if activation is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out

    def fuse(self) -> None:
        """Fold the norm's running statistics into the convolution, in place; calling it again changes nothing."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fused_conv(self.conv, self.norm)
            self.norm = nn.Identity()


@torch.no_grad()
def fused_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with a bias that equals `norm(conv(x))` in evaluation."""
    scale, shift = norm_as_affine(norm)
    fused = copy.deepcopy(conv)
    fused.weight.copy_(conv.weight * scale[:, None, None, None])
    fused.bias = nn.Parameter(shift if conv.bias is None else shift + conv.bias * scale)
    return fused


def norm_as_affine(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """The (scale, shift) of each channel that a batch norm applies in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
