"""The layers of DETR's transformer: attention with positions, encoder and decoder blocks (DETR, appendix A.3).

Positions are added to queries and keys of every layer, never to values. So these blocks use an attention variant's
projections and map, and not its `forward`, which has one input.

Starting values are the authors': Xavier-uniform, the fused projection of queries, keys and values taken as one matrix.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import DenseAttention, flags_of
from vitexp.errors import ConfigError


class PositionedAttention(nn.Module):
    """softmax-like map of (queries, keys) on values: (B, N, D), (B, M, D), (B, M, D) -> (B, N, D)."""

    def __init__(self, dim: int, num_heads: int, *, attention: Callable[..., nn.Module]) -> None:
        super().__init__()
        name, variant = flags_of(attention).name, attention(dim, num_heads, grid=None)
        if not isinstance(variant, DenseAttention):
            raise ConfigError(
                f"model=detr reads one sequence by another, and attention={name} has no map for that; "
                "it needs queries and keys of its own; use attention=softmax"
            )
        self.variant = variant

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` is bool, True = may attend, broadcast to (B, H, N, M)."""
        q, k, v = self._heads(queries, 0), self._heads(keys, 1), self._heads(values, 2)
        read: Tensor = self.variant.attend(q, k, v, mask)
        out: Tensor = self.variant.out(read.transpose(1, 2).flatten(2))  # (B, N, D)
        return out

    def weights(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """The map (B, H, N, M)."""
        weights: Tensor = self.variant.weights(self._heads(queries, 0), self._heads(keys, 1), mask)
        return weights

    def _heads(self, x: Tensor, part: int) -> Tensor:
        """The queries (0), keys (1) or values (2) of x: (B, N, D) -> (B, H, N, d)."""
        projection, dim = self.variant.qkv_projection, x.shape[-1]
        rows = slice(part * dim, (part + 1) * dim)
        projected = F.linear(x, projection.weight[rows], None if projection.bias is None else projection.bias[rows])
        return projected.unflatten(-1, (self.variant.num_heads, -1)).transpose(1, 2)  # (B, H, N, d)


class FeedForward(nn.Module):
    """Linear, ReLU, linear: (..., D) -> (..., D), dropout between."""

    def __init__(self, dim: int, hidden_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.dropout(F.relu(self.fc1(x))))
        return out


class EncoderBlock(nn.Module):
    """norm(x + attention), then norm(x + mlp): post-norm, (B, N, D) -> (B, N, D)."""

    def __init__(
        self, dim: int, num_heads: int, *, attention: Callable[..., nn.Module], mlp_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention = PositionedAttention(dim, num_heads, attention=attention)
        self.mlp = FeedForward(dim, mlp_dim, dropout=dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        placed = x + position
        x = self.norm1(x + self.dropout(self.attention(placed, placed, x, mask)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class DecoderBlock(nn.Module):
    """Queries read each other, then the encoded map, then pass an mlp: (B, Q, D) -> (B, Q, D), post-norm."""

    def __init__(
        self, dim: int, num_heads: int, *, attention: Callable[..., nn.Module], mlp_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_attention = PositionedAttention(dim, num_heads, attention=attention)
        self.cross_attention = PositionedAttention(dim, num_heads, attention=attention)
        self.mlp = FeedForward(dim, mlp_dim, dropout=dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        queries: Tensor,
        encoded: Tensor,
        position: Tensor,
        mask: Tensor | None = None,
        *,
        among: Tensor | None = None,
    ) -> Tensor:
        """`queries` (Q, D) are the positions of x; `position` (B, N, D) those of `encoded` (B, N, D).

        `mask` says which cells may be read, `among` which query may read which: (B, 1, Q, Q), or None for all.
        """
        x = self.read_each_other(x, queries, among)
        read = self.cross_attention(x + queries, encoded + position, encoded, mask)
        x = self.norm2(x + self.dropout(read))
        return self.norm3(x + self.dropout(self.mlp(x)))

    def read_each_other(self, x: Tensor, queries: Tensor, among: Tensor | None = None) -> Tensor:
        """The first third of the block."""
        placed = x + queries
        return self.norm1(x + self.dropout(self.self_attention(placed, placed, x, among)))

    def cross_weights(
        self, x: Tensor, queries: Tensor, encoded: Tensor, position: Tensor, mask: Tensor | None
    ) -> Tensor:
        """The attention weights of each query: (B, H, Q, N)."""
        return self.cross_attention.weights(self.read_each_other(x, queries) + queries, encoded + position, mask)


def start_as_published(module: nn.Module) -> None:
    """Xavier-uniform weights for every linear layer inside, in place; biases stay."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
