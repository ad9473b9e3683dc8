"""Attention pooling, one learnt query an image: the MAP head of Zhai et al., "Scaling Vision Transformers" (2022).

As in big_vision: projections with biases, then a residual MLP behind a norm. In a sequence of several images each is
pooled over its own tokens (NaViT, section 2.2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.documents import Documents, split_attention
from vitexp.layer.init import xavier_
from vitexp.layer.mlp import Mlp


class AttentionPool(nn.Module):
    """Tokens (B, N, D) to one vector an image: (B, D), or (images, D) in the order of `documents`."""

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.probe = nn.Parameter(torch.empty(1, 1, dim))
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        nn.init.xavier_uniform_(self.probe)
        xavier_(self.query)
        xavier_(self.key_value, parts=2)
        xavier_(self.out)

    def forward(self, x: Tensor, documents: Documents | None = None) -> Tensor:
        q = self._heads(self.query(self.probe))  # (1, H, 1, d)
        k, v = (self._heads(part) for part in self.key_value(x).chunk(2, dim=-1))  # (B, H, N, d)
        pooled = self._pooled(q.to(k.dtype), k, v, documents)  # (images, H, d)
        read = self.out(pooled.flatten(1))  # (images, D)
        out: Tensor = read + self.mlp(self.norm(read))
        return out

    def _pooled(self, q: Tensor, k: Tensor, v: Tensor, documents: Documents | None) -> Tensor:
        if documents is None:
            return F.scaled_dot_product_attention(q.expand(k.shape[0], -1, -1, -1), k, v)[:, :, 0]
        if documents.kernel == "split":
            queries = q.expand(-1, -1, len(documents.counts), -1)
            read = split_attention(queries, k, v, documents.counts, F.scaled_dot_product_attention)
            return read[0].transpose(0, 1)
        mask = documents.of_image[:, None]  # (B, 1, K, N)
        read = F.scaled_dot_product_attention(q.expand(k.shape[0], -1, mask.shape[2], -1), k, v, attn_mask=mask)
        return read.transpose(1, 2)[documents.present]  # (images, H, d)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, N, d)
