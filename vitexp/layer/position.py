"""Learned positions resized to another grid (ViT, section 3.2), each method named after whose code does it so."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vitexp.errors import ConfigError

# How each origin interpolates. The ViT authors call scipy.ndimage.zoom(order=1), which maps corner to corner.
_METHODS: dict[str, tuple[str, bool | None, bool]] = {  # mode, align_corners, antialias
    "official": ("bilinear", True, False),
    "timm_npz": ("bilinear", False, False),
    "timm": ("bicubic", False, True),
    "hf": ("bicubic", False, False),
}
METHODS = tuple(_METHODS)


def resize_position(
    table: Tensor, *, old_grid: tuple[int, int], new_grid: tuple[int, int], num_prefix: int, method: str
) -> Tensor:
    """Interpolate a table of positions from one grid to another.

    Args:
        table: (1, P + h*w, D), the P prefix rows (class token) first; these are kept as they are.
        old_grid, new_grid: (h, w) in patches.
        num_prefix: P.
        method: one of `METHODS`.

    Returns:
        (1, P + h'*w', D) in the table's dtype, the table itself where the grids are equal.

    Raises:
        ConfigError: a method that is not one of `METHODS`.
    """
    if method not in _METHODS:
        raise ConfigError(f"position_method={method} is unknown; it is one of {', '.join(METHODS)}; use official")
    if old_grid == new_grid:
        return table
    mode, align_corners, antialias = _METHODS[method]
    prefix, rows = table[:, :num_prefix], table[:, num_prefix:]
    grid = rows.float().unflatten(1, old_grid).permute(0, 3, 1, 2)  # (1, D, h, w)
    grid = F.interpolate(grid, size=new_grid, mode=mode, align_corners=align_corners, antialias=antialias)
    rows = grid.flatten(2).transpose(1, 2).to(table.dtype)  # (1, h'*w', D)
    return torch.cat([prefix, rows], dim=1)
