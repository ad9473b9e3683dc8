"""Scaled dot-product attention (Vaswani et al. 2017, equation 1), the attention of ViT."""

from typing import final

from torch import Tensor

from vitexp.attention.base import DenseAttention, fused_attention, masked_softmax


@final
class Softmax(DenseAttention):
    """softmax(q k^T / (temperature sqrt(d)) + bias) v: (B, N, D) -> (B, N, D)."""

    takes_documents = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        grid: tuple[int, int] | None = None,
        qkv_bias: bool,
        temperature: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads, grid=grid, qkv_bias=qkv_bias, dropout=dropout)
        self.scale = self.head_dim**-0.5 / temperature

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        scores = (q * self.scale) @ k.transpose(-2, -1)  # (B, H, N, N + M)
        return masked_softmax(scores if bias is None else scores + bias, mask)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        rate = self.dropout_rate if self.training else 0.0
        return fused_attention(q, k, v, mask, bias, scale=self.scale, dropout_rate=rate)
