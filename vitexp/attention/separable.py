"""Separable self-attention: Mehta and Rastegari, "Separable Self-attention for Mobile Vision Transformers" (2022).

Section 3.2, equations 2 and 3. The cost is linear in the number of tokens: each token has one score, all tokens share
one context vector, and no pair of tokens is ever compared.
"""

from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import check_heads
from vitexp.errors import ConfigError


@final
class Separable(nn.Module):
    """out(relu(v) * sum_n softmax(q)_n k_n): (B, N, D) -> (B, N, D), the softmax over all N tokens.

    q is one number a token, unscaled. There is no map of weights to mask, to bias or to add keys to; a class
    token is one of the N. `num_heads` must divide `dim`, as for every variant, so that attention= can be exchanged, and
    is not used otherwise: the paper has one head.
    """

    takes_mask: ClassVar[bool] = False
    takes_bias: ClassVar[bool] = False
    takes_context: ClassVar[bool] = False
    needs_grid: ClassVar[bool] = False

    def __init__(
        self, dim: int, num_heads: int, *, grid: tuple[int, int] | None = None, qkv_bias: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.dim = dim
        self.dropout = nn.Dropout(dropout)
        self.qkv_projection = nn.Linear(dim, 1 + 2 * dim, bias=qkv_bias)  # rows: query 1 | key D | value D
        self.out = nn.Linear(dim, dim)
        for weight in (*self.qkv_projection.weight.split([1, dim, dim]), self.out.weight):
            nn.init.xavier_uniform_(weight)
        for linear in (self.qkv_projection, self.out):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(
        self, x: Tensor, *, context: Tensor | None = None, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """(B, N, D) -> (B, N, D).

        Keys are linear in x, so the sum of weighted keys is the key of the weighted sum: one row a set is projected
        instead of N, a third of the layer's arithmetic saved. `forward_plain` does it in the paper's order.
        """
        refuse(context=context, mask=mask, bias=bias)
        if type(self.qkv_projection) is not nn.Linear:  # LoRA's computes more than its weight says
            return self.forward_plain(x)
        (query, key, value), (query_bias, key_bias, value_bias) = self._parts()
        weights = self.dropout(self.weights(x @ query[0] if query_bias is None else x @ query[0] + query_bias))
        mean = torch.bmm(weights[:, None], x)  # (B, 1, D)
        summed = F.linear(mean, key)
        if key_bias is not None:
            # The weights add up to 1 only as long as none is dropped.
            summed = torch.addcmul(summed, weights.sum(dim=1)[:, None, None], key_bias)  # (B, 1, D)
        values = F.relu(F.linear(x, value, value_bias), inplace=True) * summed
        return self.out(values)  # (B, N, D)

    def forward_plain(self, x: Tensor) -> Tensor:
        """The same values in the paper's order: every token's key is projected, by the layer that projects."""
        query, key, value = self.qkv_projection(x).split([1, self.dim, self.dim], dim=-1)
        weights = self.dropout(self.weights(query[..., 0]))
        summed = (weights[..., None] * key).sum(dim=1, keepdim=True)  # (B, 1, D)
        out: Tensor = self.out(F.relu(value) * summed)
        return out

    def weights(self, scores: Tensor) -> Tensor:
        """Scores (B, N) to the shares (B, N) of the tokens in the context vector, without dropout."""
        return scores.softmax(dim=-1)

    def _parts(self) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        """Weights and biases of query, key and value, as views."""
        sizes = [1, self.dim, self.dim]
        bias = self.qkv_projection.bias
        biases = (None, None, None) if bias is None else bias.split(sizes)
        return self.qkv_projection.weight.split(sizes), biases


def refuse(*, context: Tensor | None, mask: Tensor | None, bias: Tensor | None) -> None:
    """Raise ConfigError for what an attention without a map cannot use."""
    given = [name for name, value in (("context", context), ("mask", mask), ("bias", bias)) if value is not None]
    if given:
        raise ConfigError(
            f"attention=separable was given a {' and a '.join(given)}, and it has no map of weights that could take it;"
            " only attentions with a map can; use attention=softmax, cosine or reattention"
        )
