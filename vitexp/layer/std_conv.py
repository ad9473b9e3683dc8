"""Convolution with standardised weights (Qiao et al. 2019, "Weight Standardization") and TensorFlow's SAME padding.

The variance gets an epsilon of 1e-8 under the root, as in timm; the ViT authors' Flax code adds 1e-5 to the deviation.
A group norm follows each of these convolutions, so that a common factor of its weights does not matter.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.layer.init import lecun_

_EPS = 1e-8


class StdConv(nn.Conv2d):
    """Convolution by (w - mean) / std of each output channel's weights, no bias: (B, C, H, W) -> (B, C', H', W').

    H' = H / stride, rounded up. `fuse` standardises the weights once, for evaluation.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, bias=False)
        self.standardised = False
        lecun_(self)

    def forward(self, x: Tensor) -> Tensor:
        x, padding = same_padding(x, self.kernel_size[0], self.stride[0])
        weight = self.weight if self.standardised else standardise(self.weight)
        return F.conv2d(x, weight, stride=self.stride, padding=padding)

    @torch.no_grad()
    def fuse(self) -> None:
        """Standardise the weights in place; calling it again changes nothing."""
        if not self.standardised:
            self.weight.copy_(standardise(self.weight))
            self.standardised = True


def standardise(weight: Tensor) -> Tensor:
    """Weights (C', C, h, w) with mean 0 and variance 1 in each output channel."""
    var, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    return (weight - mean) * torch.rsqrt(var + _EPS)


def same_padding(x: Tensor, kernel_size: int, stride: int, *, value: float = 0.0) -> tuple[Tensor, int]:
    """The map padded as TensorFlow's SAME does, and the padding that is left to the convolution.

    What does not split evenly goes to the right and bottom, so that a stride of 2 reads other pixels than symmetric
    padding would.
    """
    if stride == 1:
        return x, kernel_size // 2
    height, width = (max((math.ceil(n / stride) - 1) * stride + kernel_size - n, 0) for n in x.shape[-2:])
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    return (F.pad(x, sides, value=value) if any(sides) else x), 0
