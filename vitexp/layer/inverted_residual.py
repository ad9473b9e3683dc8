"""The inverted residual of MobileNetV2 (Sandler et al. 2018, section 3.3), with SiLU, as MobileViT uses it."""

from torch import Tensor, nn

from vitexp.layer.conv_norm import ConvNorm
from vitexp.layer.silu import Silu

_CHANNEL_MULTIPLE = 8


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 a channel on its own, 1x1 back without activation.

    (B, C, H, W) -> (B, C', H / stride, W / stride); the input is added where it has the output's shape.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: float) -> None:
        super().__init__()
        hidden = nearest_multiple(in_channels * expansion, _CHANNEL_MULTIPLE)
        self.expand = ConvNorm(in_channels, hidden, activation=Silu)
        self.depthwise = ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden, activation=Silu)
        self.project = ConvNorm(hidden, out_channels)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.is_residual else out


def nearest_multiple(value: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `value`, but never less than it or than nine tenths of `value`."""
    rounded = max(divisor, int(round(value) + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
