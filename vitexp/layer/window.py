"""Windows of a map, plain and shifted: Liu et al., "Swin Transformer" (ICCV 2021), section 3.2.

Attention stays inside a window. A shift by half a window is cyclic, so a window may then hold cells that are no
neighbours: a mask keeps those apart. Cutting and joining are one gather each, by a fixed order of the cells.
Where the map is no multiple of the window it is padded at the bottom right; three ways are known:

    masked  pad, then shift; padding is hidden from the image's cells (ours: it says nothing about the image)
    hf      pad, then shift; padding is attended like any cell (transformers)
    timm    shift, then pad; padding is attended like any cell
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.errors import ConfigError

PADDINGS = ("masked", "hf", "timm")
CLAMPS = ("axis", "both")

Size = tuple[int, int]


class Windows(nn.Module):
    """The windows of one block: `cut` a map, attend under `mask`, `join` the windows into a map again.

    Args:
        grid: (h, w) of the map it is made for; another map works too, its order is then made on each call.
        window: (h, w) in cells.
        shift: (h, w) in cells, 0 for plain windows.
        padding: masked, hf or timm.

    Raises:
        ConfigError: an unknown padding.
    """

    order: Tensor
    inverse: Tensor
    labels: Tensor

    def __init__(self, *, grid: Size, window: Size, shift: Size, padding: str) -> None:
        super().__init__()
        if padding not in PADDINGS:
            raise ConfigError(
                f"model.window.padding={padding} is unknown; padded cells are masked, or attended as hf or timm does; "
                f"use {', '.join(PADDINGS[:-1])} or {PADDINGS[-1]}"
            )
        self.grid, self.window, self.shift, self.padding = grid, window, shift, padding
        order, inverse, labels = self._plan(grid, None)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", inverse, persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def cut(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B * windows, cells, D)."""
        grid = (x.shape[1], x.shape[2])
        padded = self.padded(grid)
        if padded != grid:
            if self._shifts_first(grid):
                x = torch.roll(x, (-self.shift[0], -self.shift[1]), (1, 2))
            x = F.pad(x, (0, 0, 0, padded[1] - grid[1], 0, padded[0] - grid[0]))
        x = x.flatten(1, 2)  # (B, h * w, D)
        if padded != self.window:
            order, inverse = self._orders(grid, x.device)
            x = reorder(x, order, inverse)
        return x.reshape(-1, self.window[0] * self.window[1], x.shape[-1])  # (B * windows, cells, D)

    def join(self, windows: Tensor, grid: Size) -> Tensor:
        """(B * windows, cells, D) -> (B, h, w, D)."""
        padded = self.padded(grid)
        x = windows.reshape(-1, padded[0] * padded[1], windows.shape[-1])  # (B, h * w, D)
        if padded != self.window:
            order, inverse = self._orders(grid, x.device)
            x = reorder(x, inverse, order)
        x = x.unflatten(1, padded)  # (B, h, w, D)
        if padded != grid:
            x = x[:, : grid[0], : grid[1]]
            if self._shifts_first(grid):
                x = torch.roll(x, self.shift, (1, 2))
        return x

    def mask(self, grid: Size, batch: int) -> Tensor | None:
        """Bool (B * windows, 1, cells, cells), True = may attend; None where each cell may attend its whole window."""
        hides_padding = self.padding == "masked" and self.padded(grid) != grid
        if not any(self.shift) and not hides_padding:
            return None
        labels = self.labels if grid == self.grid else self._plan(grid, self.labels.device)[2]
        together = labels[:, :, None] == labels[:, None, :]  # (windows, cells, cells)
        return together.expand(batch, -1, -1, -1).flatten(0, 1).unsqueeze(1)

    def padded(self, grid: Size) -> Size:
        """The smallest (h, w) that the windows tile."""
        return up(grid[0], self.window[0]), up(grid[1], self.window[1])

    def _shifts_first(self, grid: Size) -> bool:
        return self.padding == "timm" and any(self.shift) and self.padded(grid) != grid

    def _orders(self, grid: Size, device: torch.device) -> tuple[Tensor, Tensor]:
        if grid == self.grid:
            return self.order, self.inverse
        return self._plan(grid, device)[:2]

    def _plan(self, grid: Size, device: torch.device | None) -> tuple[Tensor, Tensor, Tensor]:
        """Cells in window order, the way back, and the label (windows, cells) of what may attend each other."""
        padded = self.padded(grid)
        rows, columns = (
            axis_labels(n, whole, shift, hide=self.padding == "masked", device=device)
            for n, whole, shift in zip(grid, padded, self.shift, strict=True)
        )
        labels = self._by_window(3 * rows[:, None] + columns)
        cells = torch.arange(padded[0] * padded[1], device=device).view(padded)
        if any(self.shift) and not self._shifts_first(grid):
            cells = torch.roll(cells, (-self.shift[0], -self.shift[1]), (0, 1))
        order = self._by_window(cells).flatten()
        return order, order.argsort(), labels

    def _by_window(self, cells: Tensor) -> Tensor:
        """(h, w) -> (windows, cells)."""
        height, width = self.window
        return cells.unflatten(1, (-1, width)).unflatten(0, (-1, height)).transpose(1, 2).flatten(2).flatten(0, 1)


def axis_labels(length: int, padded: int, shift: int, *, hide: bool, device: torch.device | None) -> Tensor:
    """A label for each place of one shifted, padded axis: 0, 1 where the shift wrapped around, 2 for hidden padding."""
    place = torch.arange(padded, device=device)
    labels = (place >= padded - shift).long()
    return torch.where((place + shift) % padded >= length, 2, labels) if hide else labels


def clamp_window(grid: Size, window: int, *, clamp: str) -> tuple[Size, Size]:
    """Window and shift (h, w) for a map: no larger than the map, and no shift where one window covers it.

    Args:
        grid: (h, w) of the map.
        window: wished side in cells; the shift is half of it.
        clamp: `axis` looks at each axis on its own (timm, transformers), `both` at the shorter one (the authors).

    Raises:
        ConfigError: an unknown clamp, a window without cells.
    """
    if clamp not in CLAMPS:
        raise ConfigError(f"model.window.clamp={clamp} is unknown; use {' or '.join(CLAMPS)}")
    if window < 1:
        raise ConfigError(f"model.window.size={window} holds no cell; a window is at least 1 cell wide; use 8")
    short = min(grid)
    heights = [short, short] if clamp == "both" else list(grid)
    sides = [(side, 0) if side <= window else (window, window // 2) for side in heights]
    return (sides[0][0], sides[1][0]), (sides[0][1], sides[1][1])


def up(length: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `length`."""
    return math.ceil(length / step) * step


def reorder(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """x[:, order], (B, N, D) -> (B, N, D); its gradient is the gather by `inverse`, not a scatter."""
    if torch.is_grad_enabled() and x.requires_grad:
        reordered: Tensor = _Reorder.apply(x, order, inverse)
        return reordered
    return x.index_select(1, order)


class _Reorder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return reorder(gradient, inverse, order), None, None
