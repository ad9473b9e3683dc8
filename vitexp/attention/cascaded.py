"""Cascaded group attention: Liu et al., "EfficientViT: Memory Efficient Vision ..." (CVPR 2023), equations 2 to 4.

Names and starting values follow the authors' code; the biases are gathered at each call, so that they are never stale.
Tokens stay channels-last throughout: a map and its tokens are two views of one memory.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import check_heads
from vitexp.errors import ConfigError
from vitexp.layer.conv_norm import ConvNorm


@final
class Cascaded(nn.Module):
    """Head j attends within its own share of the channels, plus what head j - 1 read: (B, N, D) -> (B, N, D).

    q, k, v = norm(project(x_j + read_{j-1})), q = norm(depthwise(q)) over the grid,
    read_j = softmax(q k^T / sqrt(key_dim) + bias_j(|dy|, |dx|)) v, and out = norm(project(relu(read_1 .. read_H))).

    Args:
        grid: (h, w) of the tokens, N = h * w.
        key_dim: channels of each head's queries and keys; its values are D / H wide.
        kernels: side of the convolution over the queries of each head; the last one serves all heads that follow.
        cascade: whether a head also sees what the one before it read; False is the paper's ablation.

    Flags beside the contract's: `takes_kernels`, a model may set `kernels`; `has_norm`, its output is normalised, so
    the model needs no norm around it.

    Raises:
        ConfigError: no grid, a width that does not split into heads, an even kernel.
    """

    takes_mask: ClassVar[bool] = False
    takes_bias: ClassVar[bool] = False
    takes_context: ClassVar[bool] = False
    needs_grid: ClassVar[bool] = True
    takes_kernels: ClassVar[bool] = True
    has_norm: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        grid: tuple[int, int] | None = None,
        key_dim: int,
        kernels: Sequence[int],
        cascade: bool,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        check_kernels(kernels)
        if grid is None:
            raise ConfigError(
                "attention=cascaded convolves queries over a grid, and this model gives it none; it needs tokens that "
                "are the cells of a map; use attention=softmax"
            )
        self.grid, self.num_heads, self.cascade = grid, num_heads, cascade
        self.scale = key_dim**-0.5
        head_dim = dim // num_heads
        self.widths = (key_dim, key_dim, head_dim)
        sides = [kernels[min(head, len(kernels) - 1)] for head in range(num_heads)]
        self.qkv = nn.ModuleList(ConvNorm(head_dim, sum(self.widths)) for _ in sides)
        self.query = nn.ModuleList(ConvNorm(key_dim, key_dim, side, groups=key_dim) for side in sides)
        self.out = ConvNorm(dim, dim, zero=True)
        self.bias_table = nn.Parameter(torch.zeros(num_heads, grid[0] * grid[1]))
        self.offsets: Tensor
        self.register_buffer("offsets", absolute_offsets(grid), persistent=False)

    def forward(
        self, x: Tensor, *, context: Tensor | None = None, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """(B, N, D) -> (B, N, D); the class's flags say that `context`, `mask` and `bias` cannot be given."""
        assert context is None
        assert mask is None
        assert bias is None
        read = torch.cat([values for _, values in self.heads(x)], dim=-1)  # (B, N, D)
        return to_tokens(self.out(to_map(F.relu(read, inplace=True), self.grid)))

    def maps(self, x: Tensor) -> Tensor:
        """The map (B, H, N, N) by which each head reads its values; a head's depends on those before it."""
        return torch.stack([weights for weights, _ in self.heads(x)], dim=1)

    def heads(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """One head after the other: its weights (B, N, N) and the values that it read (B, N, D / H)."""
        biases = self.bias_table[:, self.offsets]  # (H, N, N)
        values: Tensor | None = None
        for head, part in enumerate(x.chunk(self.num_heads, dim=-1)):
            seen = part if values is None or not self.cascade else part + values
            qkv = to_tokens(self.qkv[head](to_map(seen, self.grid)))
            q, k, v = qkv.split(self.widths, dim=-1)
            q = to_tokens(self.query[head](to_map(q, self.grid)))
            scores = torch.baddbmm(biases[head], q, k.transpose(1, 2), alpha=self.scale)  # (B, N, N)
            weights = scores.softmax(dim=-1)
            values = weights @ v
            yield weights, values


def absolute_offsets(grid: tuple[int, int]) -> Tensor:
    """(N, N) indices |dy| * w + |dx| between the cells of a grid, for tables with one entry an absolute offset."""
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    dy, dx = (rows[:, None] - rows).abs(), (columns[:, None] - columns).abs()
    return (dy[:, None, :, None] * grid[1] + dx[None, :, None, :]).flatten(2).flatten(0, 1)  # (N, N)


def check_kernels(kernels: Sequence[int]) -> None:
    """Raise ConfigError unless there are kernels and each has a centre."""
    if not kernels or not all(side > 0 and side % 2 for side in kernels):
        raise ConfigError(
            f"kernels={list(kernels)} do not centre on a token; each must be odd, and there must be one at least; "
            "use [7,5,3,3]"
        )


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, N, D) as a map (B, D, h, w), channels-last: the same memory."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, D, h, w) as tokens (B, N, D): the same memory if the map is channels-last."""
    return x.flatten(2).transpose(1, 2)
