"""Positions of the cells of a map, for images that are padded in a batch (DETR, appendix A.4).

Sines are Vaswani et al.'s in two dimensions, counted over the cells that are not padding and scaled to 2 pi, so that
the last cell of an image has the same phase whatever its size. The learned alternative has a table for rows and one for
columns, and so an end.
"""

import math

import torch
from torch import Tensor, nn

from vitexp.errors import ConfigError

_TEMPERATURE = 10000.0
_EPS = 1e-6
# Rows and columns that the authors' tables have.
_CELLS = 50


class SinePosition(nn.Module):
    """Padding (B, h, w), True = padded, to positions (B, D, h, w): half of the channels for y, then half for x."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, padding: Tensor) -> Tensor:
        real = ~padding
        down, across = real.cumsum(1, dtype=torch.float32), real.cumsum(2, dtype=torch.float32)
        down = down / (down[:, -1:] + _EPS) * (2 * math.pi)
        across = across / (across[:, :, -1:] + _EPS) * (2 * math.pi)
        half = self.dim // 2
        pair = torch.arange(half, dtype=torch.float32, device=padding.device) // 2
        waves = _TEMPERATURE ** (2 * pair / half)
        return torch.cat([_interleave(down, waves), _interleave(across, waves)], dim=-1).permute(0, 3, 1, 2)


class LearnedPosition(nn.Module):
    """Padding (B, h, w) to positions (B, D, h, w) from two tables, half of the channels for x, then half for y."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(_CELLS, dim // 2).uniform_())
        self.columns = nn.Parameter(torch.empty(_CELLS, dim // 2).uniform_())

    def forward(self, padding: Tensor) -> Tensor:
        images, height, width = padding.shape
        if max(height, width) > _CELLS:
            raise ConfigError(
                f"model.position=learned has {_CELLS} rows and columns, and a map of {height}x{width} cells reached it;"
                " use smaller images (size=), or model.position=sine"
            )
        across = self.columns[:width].expand(height, -1, -1)
        down = self.rows[:height, None].expand(-1, width, -1)
        return torch.cat([across, down], dim=-1).permute(2, 0, 1).expand(images, -1, -1, -1)


def map_position(kind: str, dim: int) -> nn.Module:
    """The positions that `model.position` names: sine or learned."""
    if kind not in ("sine", "learned"):
        raise ConfigError(f"model.position={kind} is not known; a detector has sine and learned positions; use sine")
    if dim % 4:
        raise ConfigError(f"model.dim={dim} does not split into sines and cosines of x and y; use a multiple of 4")
    return SinePosition(dim) if kind == "sine" else LearnedPosition(dim)


def _interleave(phase: Tensor, waves: Tensor) -> Tensor:
    """Sines of even channels and cosines of odd ones: (B, h, w) -> (B, h, w, half)."""
    angles = phase[..., None] / waves
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)
