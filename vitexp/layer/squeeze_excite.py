"""Channels weighted by what the whole map holds (Hu et al. 2018, "Squeeze-and-Excitation Networks", section 3)."""

from torch import Tensor, nn
from torch.nn import functional as F


class SqueezeExcite(nn.Module):
    """x * sigmoid(expand(relu(reduce(mean of x)))): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden_channels, 1)
        self.expand = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * self.expand(F.relu(self.reduce(mean))).sigmoid()
