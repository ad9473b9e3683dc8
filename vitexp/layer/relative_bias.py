"""The bias that a relative position adds to the score of two cells, for every pair of cells of a window.

Liu et al., "Swin Transformer V2" (CVPR 2022), section 3.3. `cpb_log` and `cpb_linear` ask a small net for each offset,
so that any window size has its bias; `parameterised` learns a number for each offset (Swin V1). Not in the paper but in
the authors' code, and here: 16 sigmoid of what the net says, and offsets scaled to 8 at the pretrained window's edge
before the logarithm to base 8. The paper's linear net reads raw offsets; ours reads offsets of 1 at that edge.
"""

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.errors import ConfigError

KINDS = ("cpb_log", "cpb_linear", "parameterised")

Size = tuple[int, int]


class RelativeBias(nn.Module, ABC):
    """Bias (1, H, N, N) of a window of N = h * w cells, added to attention scores.

    Where no gradient is asked for, it is kept until a weight changes (in place, which the tensor's version tells, or by
    replacement), the module moves to another device or number format, or training begins or ends.
    """

    undecayed = True  # read by the grouping of parameters: no weight in here decays, as in the authors' recipe
    index: Tensor

    def __init__(self, *, window: Size) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("index", pair_index(window), persistent=False)
        self._kept: tuple[Any, Tensor] | None = None

    @abstractmethod
    def offsets(self) -> Tensor:
        """The bias (offsets, H) of each offset, rows by (dy, dx) from the most negative on."""

    def forward(self) -> Tensor:
        """(1, H, N, N)."""
        if not self._may_keep():
            return self._pairs()
        # The detached alias holds the memory, so that no other weight can come to lie at its address.
        state = [(p, p._version, p.data_ptr(), p.dtype, p.detach()) for p in self.parameters()]
        if self._kept is None or not _unchanged(self._kept[0], state):
            # Not as an inference tensor: that could not enter a graph later, where only this module is frozen.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._kept = (state, self._pairs())
        return self._kept[1]

    def _may_keep(self) -> bool:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        weights = list(self.parameters())
        wants_gradient = torch.is_grad_enabled() and any(p.requires_grad for p in weights)
        return not wants_gradient and not any(p.is_inference() for p in weights)  # these have no version

    def _pairs(self) -> Tensor:
        with full_precision(self.index.device.type):  # half floats would blur neighbouring offsets
            by_pair = F.embedding(self.index, self.offsets())  # (N, N, H)
        return by_pair.permute(2, 0, 1).unsqueeze(0).contiguous()  # (1, H, N, N)

    def train(self, mode: bool = True) -> Self:
        """Also forget what is kept: an optimizer that writes through `.data` leaves no other trace."""
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._kept = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Copies start without what is kept: their weights are other tensors."""
        return {**self.__dict__, "_kept": None}


class ContinuousBias(RelativeBias):
    """16 sigmoid(net(offset)), net: linear to `hidden_dim`, ReLU, linear to a number a head.

    Args:
        window: (h, w) in cells.
        num_heads: H.
        pretrained: (h, w) of the window that the net was trained with; the scale of the offsets.
        log_spaced: whether the net reads sign(u) log8(1 + |u|), |u| = 8 at the edge, or u / 8.
        hidden_dim: width of the net.
    """

    coordinates: Tensor

    def __init__(self, *, window: Size, num_heads: int, pretrained: Size, log_spaced: bool, hidden_dim: int) -> None:
        super().__init__(window=window)
        self.fc1 = nn.Linear(2, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, num_heads, bias=False)
        self.register_buffer("coordinates", offset_coordinates(window, pretrained, log_spaced), persistent=False)

    def offsets(self) -> Tensor:
        return 16 * self.fc2(F.relu(self.fc1(self.coordinates))).sigmoid()  # (offsets, H)


class TableBias(RelativeBias):
    """A learnt number for each offset and head."""

    def __init__(self, *, window: Size, num_heads: int) -> None:
        super().__init__(window=window)
        self.table = nn.Parameter(torch.empty((2 * window[0] - 1) * (2 * window[1] - 1), num_heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def offsets(self) -> Tensor:
        return self.table


def relative_bias(kind: str, *, window: Size, num_heads: int, pretrained: Size, hidden_dim: int) -> RelativeBias:
    """The bias of a window by its name, one of `KINDS`.

    Raises:
        ConfigError: another name.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"model.block.bias={kind} is unknown; a window's bias is a net over offsets or a table; "
            f"use {', '.join(KINDS[:-1])} or {KINDS[-1]}"
        )
    if kind == "parameterised":
        return TableBias(window=window, num_heads=num_heads)
    return ContinuousBias(
        window=window,
        num_heads=num_heads,
        pretrained=pretrained,
        log_spaced=kind == "cpb_log",
        hidden_dim=hidden_dim,
    )


def full_precision(device_type: str) -> AbstractContextManager[Any]:
    """Autocast off, on devices that have it (the meta device has none)."""
    has = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if has else nullcontext()


def pair_index(window: Size) -> Tensor:
    """Row of the table of offsets for each pair of cells, (N, N): query minus key."""
    height, width = window
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    dy, dx = (axis[:, None] - axis[None, :] for axis in (y, x))  # (N, N) each
    return ((dy + height - 1) * (2 * width - 1) + dx + width - 1).int()  # half the memory of int64 for large windows


def offset_coordinates(window: Size, pretrained: Size, log_spaced: bool) -> Tensor:
    """The coordinates of each offset that the net reads, (offsets, 2). A window of one cell has the offset 0 only."""
    axes = []
    for side, trained in zip(window, pretrained, strict=True):
        u = torch.arange(1 - side, side, dtype=torch.float32) / max(trained - 1, 1)
        axes.append(u.sign() * torch.log2(1 + 8 * u.abs()) / math.log2(8) if log_spaced else u)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)


def resize_table(table: Tensor, window: Size) -> Tensor | None:
    """A table (offsets, H) of a square window, resized bicubically for another window; None if it is of no square."""
    side = math.isqrt(len(table))
    if side * side != len(table) or not side % 2:
        return None
    grid = table.T.float().unflatten(1, (side, side)).unsqueeze(0)  # (1, H, side, side)
    size = (2 * window[0] - 1, 2 * window[1] - 1)
    resized = F.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    return resized[0].flatten(1).T.to(table.dtype)  # (offsets, H)


def _unchanged(before: list[tuple[Any, ...]], now: list[tuple[Any, ...]]) -> bool:
    return all(a[0] is b[0] and a[1:4] == b[1:4] for a, b in zip(before, now, strict=True))
