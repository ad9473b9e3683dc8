"""Masked memory: new class tokens that read a frozen encoder and their own memory, and leave its output as it was.

Sandler et al. 2022, section 3.2, Table 1 and Fig. 3. One masked call is not bit-identical to the plain model, so the
base runs as it always does (without a graph), and the class tokens run beside it, over the base's keys and values.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vitexp.attention.base import DenseAttention
from vitexp.model.encoder import Block, TokenEncoder
from vitexp.model.vit import ViT
from vitexp.regime.base import freeze, keep_in_eval


class TaskMemory(nn.Module):
    """The parts that one task adds to a frozen encoder: class_token (1, 1, D), memory (L, m, D), and a head."""

    def __init__(self, *, class_token: Tensor, memory: Tensor, head: nn.Linear) -> None:
        super().__init__()
        self.class_token = nn.Parameter(class_token)
        self.memory = nn.Parameter(memory)
        self.head = head


class MaskedMemory(nn.Module):
    """A frozen encoder with the class tokens and memories of T tasks: images (B, C, H, W) to logits (B, K).

    `forward` answers for the task `selected` (the last, unless set), `answers` for all in one pass. Only the last task
    takes gradients, and only if it was given so. What the tasks read of the base does not depend on them:
    `embed_frozen` computes it once, and `forward` takes it in place of the images.

    Args:
        base: frozen here, and in eval mode for good.
        tasks: in the order in which they were trained.
        names: of the tasks.
        reads: for each task the earlier tasks whose class tokens and memories it reads (model extension); empty for
            one trained on its own.
        memory_norm: whether memory passes through each layer's norm.
    """

    mask: Tensor | None
    cached_k: Tensor | None
    cached_v: Tensor | None

    def __init__(
        self,
        base: TokenEncoder,
        *,
        tasks: Sequence[TaskMemory],
        names: Sequence[str],
        reads: Sequence[Sequence[int]],
        memory_norm: bool,
    ) -> None:
        super().__init__()
        freeze(base, trained=())
        keep_in_eval(base)
        self.base = base
        self.tasks = nn.ModuleList(tasks)
        self.names, self.reads, self.memory_norm = list(names), [list(earlier) for earlier in reads], memory_norm
        self.selected = len(tasks) - 1
        # Digests of the adapters that the last task was trained on top of, for its own adapter.
        self.earlier: list[str] = []
        self.rates: dict[str, tuple[float, float | None]] = {}
        self.fingerprint, self.plain_names, self.grid = base.fingerprint, base.plain_names, base.grid
        counts = [task.memory.shape[1] for task in tasks]
        self.num_tokens = base.num_prefix + base.grid[0] * base.grid[1]
        rows = attention_mask(num_tokens=self.num_tokens, counts=counts, reads=self.reads)
        # A single task may read every key there is: no mask.
        self.register_buffer("mask", rows[-len(tasks) :] if len(tasks) > 1 else None, persistent=False)
        self.register_buffer("cached_k", None, persistent=False)
        self.register_buffer("cached_v", None, persistent=False)

    @property
    def num_classes(self) -> int:
        """Classes of the selected task."""
        return self._task(self.selected).head.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W), or of what `embed_frozen` made of them."""
        tokens = self._from_frozen(images) if images.ndim == 2 else self.encode(images, keep_base=False)[1]
        return self._logits(self.selected, tokens)

    @torch.no_grad()
    def embed_frozen(self, images: Tensor) -> Tensor:
        """Keys and values of the base in every layer, flat: (B, F), F = 2 L N D where no layer was pruned."""
        x, parts = self.base.embed(images), list[Tensor]()
        for index in range(len(self.base.blocks)):
            x, pair = self._base_step(index, x, keep_base=False)
            parts += [part.flatten(1) for part in pair]
        return torch.cat(parts, dim=1)

    def answers(self, images: Tensor, *, base: bool = True) -> dict[str, Tensor]:
        """Logits (B, K) of every task by its name, from one pass; with `base` also its own, under an empty name."""
        x, tokens = self.encode(images, keep_base=base)
        own = {} if x is None else {"": self.base.head(self.base.pool(self.base.norm(x)))}
        normed = self.base.norm(tokens)  # (B, T, D)
        return own | {name: self._task(index).head(normed[:, index]) for index, name in enumerate(self.names)}

    def features(self, images: Tensor) -> list[Tensor]:
        """The maps of the base, which no task changes."""
        return self.base.features(images)

    def encode(self, images: Tensor, *, keep_base: bool) -> tuple[Tensor | None, Tensor]:
        """The base's final tokens (B, N, D) before the norm, and the tasks' class tokens (B, T, D) likewise.

        Without `keep_base` the last block does of the base only what the class tokens read: its keys and values.
        """
        with torch.no_grad():
            x = self.base.embed(images)
        tokens = self._start(x.shape[0], x.dtype)
        for index in range(len(self.base.blocks)):
            x, pair = self._base_step(index, x, keep_base=keep_base)
            tokens = self._read(index, tokens, pair)
        return (x if keep_base else None), tokens

    def fuse(self) -> None:
        """Fold the base's batch norms, and compute the keys and values of all memories once, for evaluation."""
        self.base.fuse()
        with torch.no_grad():
            pairs = [self._memory_kv(index, cast(Block, block)) for index, block in enumerate(self.base.blocks)]
        if pairs and pairs[0] is not None:
            known = cast(list[tuple[Tensor, Tensor]], pairs)
            self.cached_k = torch.cat([k for k, _ in known]).flatten(1, 2)  # (L, H*M, d)
            self.cached_v = torch.cat([v for _, v in known]).flatten(1, 2)

    def train(self, mode: bool = True) -> "MaskedMemory":
        """The base stays in eval mode; what was computed once for evaluation is forgotten when training begins."""
        super().train(mode)
        if mode:
            self.cached_k = self.cached_v = None
        return self

    def _task(self, index: int) -> TaskMemory:
        return cast(TaskMemory, self.tasks[index])

    def _start(self, count: int, dtype: torch.dtype) -> Tensor:
        """Class tokens (B, T, D) at the place of the base's own one (Fig. 3)."""
        tokens = torch.cat([self._task(index).class_token for index in range(len(self.tasks))], dim=1)
        return cast(ViT, self.base).place(tokens).to(dtype).expand(count, -1, -1)

    @torch.no_grad()
    def _base_step(self, index: int, x: Tensor, *, keep_base: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One block for the base: its tokens behind it (B, N, D), and their keys and values in it (B, H, N, d)."""
        block = cast(Block, self.base.blocks[index])
        attention, normed = cast(DenseAttention, block.attention), block.norm1(x)
        if index + 1 == len(self.base.blocks) and not keep_base:
            return x, attention.kv(normed)
        q, k, v = attention.qkv(normed)
        return _residual(block, x, attention.attend(q, k, v)), (k, v)

    def _from_frozen(self, kept: Tensor) -> Tensor:
        """The class tokens (B, T, D) behind the last block, over the base's keys and values, flat (B, F)."""
        layers = [cast(DenseAttention, cast(Block, block).attention) for block in self.base.blocks]
        tokens, start = self._start(kept.shape[0], self.base.norm.weight.dtype), 0
        for index, layer in enumerate(layers):
            pair: list[Tensor] = []
            for width in (layer.head_dim, layer.value_dim):
                shape = (layer.num_heads, self.num_tokens, width)
                pair.append(kept[:, start : start + math.prod(shape)].unflatten(1, shape))
                start += math.prod(shape)
            tokens = self._read(index, tokens, (pair[0], pair[1]))
        return tokens

    def _read(self, index: int, tokens: Tensor, base: tuple[Tensor, Tensor]) -> Tensor:
        """One block for the class tokens: queries over [base keys, class tokens, memories] as far as the mask lets."""
        block = cast(Block, self.base.blocks[index])
        attention = cast(DenseAttention, block.attention)
        q, k, v = attention.qkv(block.norm1(tokens))
        keys, values = [base[0], k], [base[1], v]
        if (memory := self._memory_kv(index, block)) is not None:
            keys.append(memory[0].to(k.dtype).expand(tokens.shape[0], -1, -1, -1))
            values.append(memory[1].to(v.dtype).expand(tokens.shape[0], -1, -1, -1))
        read = attention.attend(q, torch.cat(keys, dim=2), torch.cat(values, dim=2), self.mask)
        return _residual(block, tokens, read)

    def _memory_kv(self, index: int, block: Block) -> tuple[Tensor, Tensor] | None:
        """Keys and values (1, H, M, d) of all tasks' memories in one layer; they do not depend on the images."""
        if self.cached_k is not None and self.cached_v is not None:
            heads = cast(DenseAttention, block.attention).num_heads
            return self.cached_k[None, index].unflatten(1, (heads, -1)), self.cached_v[None, index].unflatten(
                1, (heads, -1)
            )
        memory = torch.cat([self._task(task).memory[index] for task in range(len(self.tasks))])[None]  # (1, M, D)
        if memory.shape[1] == 0:
            return None
        attention = cast(DenseAttention, block.attention)
        return attention.kv(block.norm1(memory) if self.memory_norm else memory)

    def _logits(self, index: int, tokens: Tensor) -> Tensor:
        return self._task(index).head(self.base.norm(tokens[:, index]))  # (B, K)


def attention_mask(*, num_tokens: int, counts: Sequence[int], reads: Sequence[Sequence[int]]) -> Tensor:
    """The mask of who may attend whom, bool (N + T, N + T + M): the paper's Table 1.

    Rows: the base's N tokens, then the class tokens of T tasks. Columns: the same, then the memories of each task.

    Args:
        num_tokens: N.
        counts: memory tokens of each task in a layer; M is their sum.
        reads: the earlier tasks that each task reads besides itself.
    """
    tasks = len(counts)
    owner = torch.repeat_interleave(torch.arange(tasks), torch.tensor(list(counts), dtype=torch.long))
    owners = torch.cat([torch.arange(tasks), owner])  # (T + M,)
    mask = torch.zeros(num_tokens + tasks, num_tokens + len(owners), dtype=torch.bool)
    mask[:, :num_tokens] = True
    for task, earlier in enumerate(reads):
        mask[num_tokens + task, num_tokens:] = torch.isin(owners, torch.tensor([task, *earlier]))
    return mask


def _residual(block: Block, x: Tensor, values: Tensor) -> Tensor:
    """The rest of a block in eval mode, after its attention has read `values` (B, H, N, d) for x (B, N, D)."""
    attention = cast(DenseAttention, block.attention)
    x = x + attention.out(values.transpose(1, 2).flatten(2))  # (B, N, D)
    return x + block.mlp(block.norm2(x))
