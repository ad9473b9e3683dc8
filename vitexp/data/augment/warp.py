"""Many small images through one affine map each."""

import torch
from torch import Tensor
from torch.nn import functional


def warp(images: Tensor, maps: Tensor, *, fill: list[float] | None = None) -> Tensor:
    """Sample images through maps, bilinearly.

    images uint8 (B, C, H, W); maps float (B, 2, 3) from output to input coordinates, both in half widths with the
    centre as origin; `fill` is what lies outside, a number 0..255 a channel, black by default -> uint8 (B, C, H, W).
    """
    grid = functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)
    colour = torch.tensor(fill or [0.0] * images.shape[1], device=images.device).view(-1, 1, 1)
    # What lies outside is 0 to grid_sample, so the fill colour has to be 0 meanwhile.
    floats = functional.grid_sample(images.float() - colour, grid, align_corners=False) + colour
    return floats.round_().clamp_(0, 255).to(torch.uint8)
