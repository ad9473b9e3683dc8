"""Scaled cosine attention: Liu et al., "Swin Transformer V2" (CVPR 2022), section 3.2, equation 2.

A score is the cosine of query and key over a temperature learnt for each head, so it does not grow with the
activations; keys have no bias. As in the authors' code, 1 / temperature is exp of a logarithm held below ln of
`max_scale`. Attending in chunks is the paper's sequential self-attention (section 3.5), which it does not spell out.
"""

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vitexp.attention.base import DenseAttention, fused_attention, masked_softmax
from vitexp.errors import ConfigError
from vitexp.layer.init import xavier_

_TINY = 1e-24  # keeps a zero vector at zero


@final
class Cosine(DenseAttention):
    """softmax(scale_h cos(q, k) + bias) v, scale_h = exp(min(logit_scale_h, ln max_scale)): (B, N, D) -> (B, N, D).

    Args:
        dim, num_heads, grid: as every variant.
        qkv_bias: of queries and values; keys have none.
        scale: what each head's scale starts at; the paper's temperature is 1 / scale.
        max_scale: its bound.
        chunk: query tokens attended at a time, over all sequences (images or windows): whole sequences as long as one
            fits, else parts of one. In training each chunk computes its map again for the gradient, so memory holds
            one chunk's map. 0 attends to all at once. The result is the same.
        dropout: share of weights dropped in training.

    Raises:
        ConfigError: scales that are not positive or exceed their bound, a negative chunk.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        grid: tuple[int, int] | None = None,
        qkv_bias: bool,
        scale: float,
        max_scale: float,
        chunk: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads, grid=grid, qkv_bias=False, dropout=dropout)
        if not 0 < scale <= max_scale:
            raise ConfigError(
                f"model.attention.scale={scale} is out of range; it must be above 0 and at most "
                f"model.attention.max_scale={max_scale}; use model.attention.scale=10"
            )
        if chunk < 0:
            raise ConfigError(f"model.attention.chunk={chunk} is no number of tokens; use 0 for all at once, or 4096")
        self.max_log_scale, self.chunk = math.log(max_scale), chunk
        self.takes_documents = chunk == 0
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(scale)))
        if qkv_bias:
            self.qkv_projection = KeylessBias(dim)

    def kv(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B or 1, H, M, d) of tokens that are never queries."""
        k, v = super().kv(context)
        if isinstance(self.qkv_projection, KeylessBias):
            v = v + self.qkv_projection.v_bias.view(self.num_heads, 1, self.value_dim)
        return k, v

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        q_unit, k_unit = self._scaled_units(q, k)
        scores = q_unit @ k_unit.transpose(-2, -1)  # (B, H, N, N + M)
        return masked_softmax(scores if bias is None else scores + bias, mask).to(q.dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        sequences, tokens = q.shape[0], q.shape[2]
        if not self.chunk or sequences * tokens <= self.chunk:
            return self._attend(q, k, v, mask, bias)
        rows, columns = max(self.chunk // tokens, 1), min(self.chunk, tokens)
        read = []
        for row in range(0, sequences, rows):
            here = slice(row, row + rows)
            part = [
                self._attend_chunk(q, k, v, mask, bias, here, slice(column, column + columns))
                for column in range(0, tokens, columns)
            ]
            read.append(part[0] if len(part) == 1 else torch.cat(part, dim=2))
        return torch.cat(read)  # (B, H, N, d)

    def _attend_chunk(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, rows: slice, columns: slice
    ) -> Tensor:
        """Some queries of some sequences, over all keys of these."""
        mask, bias = (None if x is None else cut(x, rows, columns) for x in (mask, bias))
        inputs = (q[rows, :, columns], k[rows], v[rows], mask, bias)
        if not torch.is_grad_enabled():
            return self._attend(*inputs)
        drops = self.training and self.dropout_rate > 0  # then the same weights must drop again
        values: Tensor = checkpoint(self._attend, *inputs, use_reentrant=False, preserve_rng_state=drops)
        return values

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        rate = self.dropout_rate if self.training else 0.0
        q_unit, k_unit = self._scaled_units(q, k)
        return fused_attention(q_unit.to(v.dtype), k_unit.to(v.dtype), v, mask, bias, scale=1.0, dropout_rate=rate)

    def _scaled_units(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of length scale_h and keys of length one, in fp32 at least: half floats would lose the angle."""
        q, k = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k))
        scale = self.logit_scale.to(q.dtype).clamp(max=self.max_log_scale).exp()  # (H, 1, 1)
        # As torch.nn.functional.normalize within rounding, in half its passes over memory.
        q_inverse, k_inverse = (torch.rsqrt(x.square().sum(-1, keepdim=True) + _TINY) for x in (q, k))
        return q * (q_inverse * scale), k * k_inverse


class KeylessBias(nn.Linear):
    """Stacked queries, keys and values (..., D) -> (..., 3D) with a bias for queries and for values only."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        xavier_(self, parts=3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]))


def cut(x: Tensor, rows: slice, columns: slice) -> Tensor:
    """Rows and columns of what broadcasts to (B, H, N, ...); a dimension that is broadcast stays."""
    x = x[(None,) * (4 - x.ndim)]
    return x[rows if len(x) > 1 else slice(None), :, columns if x.shape[2] > 1 else slice(None)]
