"""The base of every attention variant over a whole map: projections, the call, and the contract's flags.

A variant is built by `variant(dim, num_heads, *, grid=None)` and called by `forward(x, *, context=None, mask=None,
bias=None)`. Shapes: B batch, N tokens, M context tokens, H heads, d = D / H.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.documents import Documents
from vitexp.errors import ConfigError
from vitexp.layer.init import xavier_

# Tokens (B or 1, M, D) that are keys and values only, or these keys and values (B or 1, H, M, d) already.
Context = Tensor | tuple[Tensor, Tensor]


class DenseAttention(nn.Module, ABC):
    """Multi-head attention that has a map: fused projections here, the map and its use in a final class.

    A final class says how scores become weights (`weights`) and reads values by them (`attend`), with a fused kernel
    where one exists; `attend(q, k, v, ...)` must equal `weights(q, k, ...) @ v` in evaluation. Queries and keys have
    `head_dim` channels a head and values `value_dim`: equal when built, fewer each in a pruned model.

    Flags, read from the class before anything is built: `takes_mask` (bool, True = may attend), `takes_bias` (added to
    the scores), `takes_context` (tokens that are keys and values but never queries), `needs_grid` (a token for each
    cell of `grid` and no other). `takes_documents`: `attend` hands its mask to `fused_attention` and to nothing else,
    so that packed images may come as `Documents`; to others they come as the bool mask.
    """

    takes_documents: bool = False
    takes_mask: ClassVar[bool] = True
    takes_bias: ClassVar[bool] = True
    takes_context: ClassVar[bool] = True
    needs_grid: ClassVar[bool] = False

    def __init__(
        self, dim: int, num_heads: int, *, grid: tuple[int, int] | None = None, qkv_bias: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.head_dim = self.value_dim = dim // num_heads
        self.dropout_rate = dropout
        self.qkv_projection = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.out = nn.Linear(dim, dim)
        xavier_(self.qkv_projection, parts=3)
        xavier_(self.out)

    def forward(
        self,
        x: Tensor,
        *,
        context: Context | None = None,
        mask: Tensor | Documents | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(B, N, D) -> (B, N, D).

        Args:
            x: tokens; queries, keys and values.
            context: (B or 1, M, D), more keys and values after those of x; or what `kv` made of it.
            mask: bool, True = may attend, broadcast to (B, H, N, N + M); a query that may attend nothing gives zeros.
                Or which tokens are of one image, where there is neither context nor bias.
            bias: float, added to the scores, broadcast to (B, H, N, N + M); -inf hides as the mask does.
        """
        if isinstance(mask, Documents) and not self.takes_documents:
            mask = mask.dense
        q, k, v = self.qkv(x, context)
        values = self.attend(q, k, v, mask, bias)  # type: ignore[arg-type]
        return self.out(values.transpose(1, 2).flatten(2))  # (B, N, D)

    def qkv(self, x: Tensor, context: Context | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, N, d), keys and values (B, H, N + M, d)."""
        narrow, wide = self.num_heads * self.head_dim, self.num_heads * self.value_dim
        q, k, v = (self._heads(part) for part in self.qkv_projection(x).split((narrow, narrow, wide), dim=-1))
        if context is None:
            return q, k, v
        more_k, more_v = context if isinstance(context, tuple) else self.kv(context)
        more_k, more_v = (part.to(k.dtype).expand(x.shape[0], -1, -1, -1) for part in (more_k, more_v))
        return q, torch.cat([k, more_k], dim=2), torch.cat([v, more_v], dim=2)

    def kv(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B or 1, H, M, d) of tokens that are never queries."""
        narrow, wide = self.num_heads * self.head_dim, self.num_heads * self.value_dim
        weight, bias = self.qkv_projection.weight[narrow:], self.qkv_projection.bias
        k, v = F.linear(context, weight, None if bias is None else bias[narrow:]).split((narrow, wide), dim=-1)
        return self._heads(k), self._heads(v)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, N, d)

    def maps(self, q: Tensor, k: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> dict[str, Tensor]:
        """The maps on the way to the values, by name, each (B, H, N, N + M); the last is `weights`, for analyses."""
        return {"softmax": self.weights(q, k, mask, bias)}

    @abstractmethod
    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """The map (B, H, N, N + M) that values are read by, without dropout."""

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Values read by the map: (B, H, N, d)."""


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the keys that a query may attend; rows that may attend nothing are zero, not NaN."""
    if mask is None:
        return scores.softmax(dim=-1)
    hidden = ~mask
    return scores.masked_fill(hidden, -torch.inf).softmax(dim=-1).masked_fill(hidden, 0.0)


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | Documents | None = None,
    bias: Tensor | None = None,
    *,
    scale: float,
    dropout_rate: float = 0.0,
) -> Tensor:
    """`masked_softmax(scale * q @ k.T + bias, mask) @ v` by torch's fused kernel, the map never in memory.

    The CPU has no such kernel where the bias trains; what torch does there takes longer than the map in three steps.
    """
    if isinstance(mask, Documents):
        assert bias is None, "images in one sequence share no bias"
        return mask.attention(q, k, v, scale=scale, dropout_rate=dropout_rate)
    if bias is not None:
        bias = bias.to(q.dtype)
        trains = bias.requires_grad and torch.is_grad_enabled()
        if trains and q.device.type == "cpu" and not torch.compiler.is_compiling():
            return _attention_in_steps(q * scale if scale != 1 else q, k, v, mask, bias, dropout_rate=dropout_rate)
        mask = bias if mask is None else torch.where(mask, bias, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_rate, scale=scale)


def _attention_in_steps(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor, *, dropout_rate: float
) -> Tensor:
    """The same as `fused_attention`, with the map in memory and as few passes over it as there can be."""
    scores = q @ k.transpose(-2, -1)  # (B, H, N, N + M)
    scores += bias
    if mask is None:
        weights = scores.softmax(dim=-1)
    elif bool(mask.any(dim=-1).all()):
        weights = scores.masked_fill_(~mask, -torch.inf).softmax(dim=-1)
    else:
        weights = masked_softmax(scores, mask)
    return F.dropout(weights, dropout_rate) @ v if dropout_rate else weights @ v


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ConfigError unless the width splits into heads."""
    if num_heads < 1 or dim % num_heads:
        fitting = [str(heads) for heads in range(1, dim + 1) if dim % heads == 0 and dim // heads >= 8]
        raise ConfigError(
            f"model.dim={dim} does not split into model.num_heads={num_heads} equal heads; num_heads must divide dim; "
            f"use one of {', '.join(fitting[:12]) or 1}"
        )


@dataclass(frozen=True)
class Flags:
    """The properties that an attention's class states; one that it leaves out is False, but for `narrows`.

    Attributes:
        kind: the class.
        takes_mask, takes_bias, takes_context, needs_grid, takes_documents: see `DenseAttention`.
        takes_kernels: a model may set `kernels`.
        has_norm: the output is normalised, so that the model needs no norm around it.
        narrows: single channels of its heads can be cut.
    """

    kind: type
    takes_mask: bool = False
    takes_bias: bool = False
    takes_context: bool = False
    needs_grid: bool = False
    takes_documents: bool = False
    takes_kernels: bool = False
    has_norm: bool = False
    narrows: bool = True

    @property
    def name(self) -> str:
        """The class's, in small letters, as attention= has it."""
        return self.kind.__name__.lower()


def flags_of(attention: Callable[..., nn.Module] | nn.Module) -> Flags:
    """The flags of an attention, or of the class behind a factory of one (`_partial_: true` gives partial)."""
    said = attention.func if isinstance(attention, partial) else attention
    owner = said if isinstance(said, type) else type(said)
    flags = (field.name for field in fields(Flags)[1:])
    return Flags(owner, **{flag: getattr(said, flag) for flag in flags if hasattr(said, flag)})
