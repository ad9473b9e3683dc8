"""Softmax attention over normalised queries and keys: Dehghani et al., "Scaling ViT to 22 Billion" (2023), section 2.

NaViT's attention (arXiv 2307.06304, section 3), there without biases of queries, keys and values (`qkv_bias`).
"""

from typing import ClassVar, final

from torch import Tensor, nn

from vitexp.attention.base import DenseAttention, fused_attention, masked_softmax


@final
class QkNorm(DenseAttention):
    """softmax(norm(q) norm(k)^T / sqrt(d) + bias) v, norms over each head's channels: (B, N, D) -> (B, N, D).

    The norms are layer norms without bias, one for queries and one for keys, shared by the heads.

    Args:
        eps: of the norms.
    """

    takes_documents = True
    narrows: ClassVar[bool] = False  # heads share the norms, so none can lose channels of its own

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        grid: tuple[int, int] | None = None,
        qkv_bias: bool,
        eps: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads, grid=grid, qkv_bias=qkv_bias, dropout=dropout)
        self.scale = self.head_dim**-0.5
        self.q_norm = nn.LayerNorm(self.head_dim, eps=eps, bias=False)
        self.k_norm = nn.LayerNorm(self.head_dim, eps=eps, bias=False)

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        scores = (self.q_norm(q) * self.scale) @ self.k_norm(k).transpose(-2, -1)  # (B, H, N, N + M)
        return masked_softmax(scores if bias is None else scores + bias, mask).to(q.dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        rate = self.dropout_rate if self.training else 0.0
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)  # autocast norms in fp32
        return fused_attention(q, k, v, mask, bias, scale=self.scale, dropout_rate=rate)
