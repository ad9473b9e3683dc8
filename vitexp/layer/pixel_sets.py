"""A map as sets of tokens and back: MobileViT's unfold and fold (Mehta and Rastegari 2022, section 3.1).

Patches of side x side pixels do not overlap; pixels at the same place of their patches form one set. Set p = u * side
+ v holds row u and column v of every patch, in the patches' row-major order. On a channels-last map each is a copy.
"""

from torch import Tensor


def split_sets(x: Tensor, side: int) -> Tensor:
    """A map (B, C, H, W), H and W multiples of `side`, to tokens (B, P, N, C): P = side^2 sets of N = H W / P."""
    batch, channels, height, width = x.shape
    cells = x.permute(0, 2, 3, 1).reshape(batch, height // side, side, width // side, side, channels)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, side * side, -1, channels)  # (B, P, N, C)


def join_sets(tokens: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """Tokens (B, P, N, C) back to the map (B, C, H, W) of `size` = (H, W), channels-last in memory."""
    batch, channels = tokens.shape[0], tokens.shape[-1]
    cells = tokens.reshape(batch, side, side, size[0] // side, size[1] // side, channels)
    x = cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, *size, channels)  # (B, H, W, C)
    return x.permute(0, 3, 1, 2)  # (B, C, H, W)
