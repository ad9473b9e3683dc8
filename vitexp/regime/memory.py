"""Learnable memory: Sandler, Zhmoginov, Vladymyrov, Jackson, "Fine-tuning Image Transformers using Learnable Memory"
(CVPR 2022), section 3.1 and Fig. 2a.

Each layer gets m tokens of its own that its queries read beside the other tokens, z_l = [y_{l-1}; E_l]; no memory row
is a query, and none reaches the next layer. As drawn in Fig. 2a the memory passes through the layer's norm.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import Context, DenseAttention
from vitexp.attention.documents import Documents
from vitexp.model.encoder import Block, TokenEncoder
from vitexp.regime.base import fit_head, freeze, require_init, require_tokens, set_rates


class MemoryBlock(Block):
    """A block whose attention reads [x; memory], memory (m, D); the block's own parts stay where they are.

    (B, N, D) -> (B, N, D). Without memory (m = 0) it is the plain block to the bit. The keys and values of the memory
    do not depend on x: `fuse` computes them once, for evaluation, and `forget` drops them when training begins.
    """

    cached_k: Tensor | None
    cached_v: Tensor | None

    def __init__(self, block: Block, *, memory: Tensor, memory_norm: bool) -> None:
        nn.Module.__init__(self)  # the parts are taken over, none is built
        for name, child in block.named_children():
            self.add_module(name, child)
        self.memory = nn.Parameter(memory)
        self.memory_norm = memory_norm
        self.register_buffer("cached_k", None, persistent=False)
        self.register_buffer("cached_v", None, persistent=False)

    def forward(self, x: Tensor, *, context: Tensor | None = None, mask: Tensor | Documents | None = None) -> Tensor:
        assert context is None, "the context of this block is its memory"
        if len(self.memory) == 0:
            return super().forward(x, mask=mask)
        mask = mask.dense if isinstance(mask, Documents) else mask
        mask = None if mask is None else F.pad(mask, (0, len(self.memory)), value=True)
        read = self.attention(self.norm1(x), context=self._context(), mask=mask)
        x = x + self.drop_path(self.dropout(read))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    @torch.no_grad()
    def fuse(self) -> None:
        """Compute the memory's keys and values (1, H, m, d) once."""
        self.forget()
        if len(self.memory):
            self.cached_k, self.cached_v = cast(DenseAttention, self.attention).kv(cast(Tensor, self._context()))

    def forget(self) -> None:
        """Compute them in every call again, as long as the memory trains."""
        self.cached_k = self.cached_v = None

    def _context(self) -> Context:
        """The memory (1, m, D) as the attention reads it, or its keys and values."""
        if self.cached_k is not None and self.cached_v is not None:
            return self.cached_k, self.cached_v
        memory = self.memory[None]
        return self.norm1(memory) if self.memory_norm else memory


def memory(
    model: nn.Module,
    *,
    num_classes: int,
    num_tokens: int,
    std: float,
    class_token: str,
    memory_norm: bool,
    lr_scale: Mapping[str, float],
    weight_decay: Mapping[str, float | None],
) -> nn.Module:
    """`head`, `class_token` and `num_tokens` memory tokens a layer train; every token reads them (full attention).

    Args:
        model: with a class token, and an attention that takes context.
        num_classes: of the head.
        num_tokens: m of each layer.
        std: memory starts at N(0, std), and so does a random class token.
        class_token: `copy` starts at the trained one, `random` anew.
        memory_norm: whether memory passes through the layer's norm, as in the paper.
        lr_scale, weight_decay: of `head`, `class_token` and `memory`.
    """
    require_init(class_token)
    encoder = require_tokens(model, regime="memory")
    fit_head(encoder, num_classes)
    freeze(encoder, trained=("head", "class_token"))
    if class_token == "random":
        nn.init.normal_(cast(nn.Parameter, encoder.class_token), std=std)
    add_memory(encoder, nn.init.normal_(new_memory(encoder, num_tokens), std=std), memory_norm=memory_norm)
    set_rates(
        encoder,
        {"head": ["head."], "class_token": ["class_token"], "memory": ["blocks."]},
        lr_scale=lr_scale,
        weight_decay=weight_decay,
    )
    return encoder


def add_memory(encoder: TokenEncoder, values: Tensor, *, memory_norm: bool) -> None:
    """Give each block of a frozen encoder its trainable memory, `values` (L, m, D), in place."""
    for index, block in enumerate(encoder.blocks):
        assert isinstance(block, Block)
        encoder.blocks[index] = MemoryBlock(block, memory=values[index].clone(), memory_norm=memory_norm).eval()


def new_memory(encoder: TokenEncoder, num_tokens: int) -> Tensor:
    """Room (L, m, D) for the memory of an encoder."""
    like = encoder.norm.weight
    return torch.empty(len(encoder.blocks), num_tokens, len(like), device=like.device, dtype=like.dtype)
