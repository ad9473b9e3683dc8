"""NaViT: Dehghani et al., "Patch n' Pack: NaViT, a Vision Transformer for any Aspect Ratio and Resolution" (2023).

arXiv 2307.06304, sections 2 and 3: a ViT without class token whose positions are coordinates, whose attention stays
inside an image when several share a sequence, and whose head reads one pooled vector an image. As in ViT-22B, queries
and keys are normed (attention=qknorm) and neither they nor the norms have biases; linear layers keep theirs. The
authors' code is not public: what the paper leaves open (MLP behind the pooling, biases there, starting values) is
big_vision's, whose authors they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import DenseAttention, flags_of
from vitexp.attention.documents import FLAT, Documents, choose_kernel
from vitexp.batch import PackedImages, grid_places
from vitexp.errors import ConfigError
from vitexp.layer.factorised_position import FactorisedPosition
from vitexp.model.attention_pool import AttentionPool
from vitexp.model.encoder import NORM_EPS, Block, TokenEncoder


class NaViT(TokenEncoder):
    """Images (B, C, H, W) of any size, or `PackedImages`, to logits, one row an image.

    Args:
        image_size: pixels, one side or (height, width), for `grid` alone: images of any size go through.
        stem: `stem(in_channels=..., dim=...)` -> linear patches, a `PatchEmbed`.
        attention: `attention(dim, num_heads, grid=None)`, called once a block; must take a mask.
        position: `position(dim)`, a `FactorisedPosition`.
        kernel: of attention in packed sequences: auto, or one of vitexp.attention.documents.
        dropout: after positions, attention and both layers of each MLP.

    Raises:
        ConfigError: an attention that takes no mask, sides that the patch does not divide.
    """

    family: ClassVar[str] = "navit"
    takes_any_size: ClassVar[Literal[True]] = True

    def __init__(
        self,
        *,
        image_size: int | Sequence[int],
        in_channels: int,
        stem: Callable[..., Any],
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        attention: Callable[..., nn.Module],
        position: Callable[[int], FactorisedPosition],
        kernel: str,
        num_classes: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_attention(attention)
        self.stem = stem(in_channels=in_channels, dim=dim)
        patch = self.stem.patch_size
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.grid, self.strides, self.num_prefix = (max(height // patch, 1), max(width // patch, 1)), (patch,), 0
        self.position_tables, self.num_classes, self.kernel = {}, num_classes, kernel
        self.position = position(dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                num_heads,
                grid=None,
                attention=attention,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                norm_bias=False,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS, bias=False)
        self.attention_pool = AttentionPool(dim, num_heads, mlp_ratio=mlp_ratio, eps=NORM_EPS)
        self.head = nn.Linear(dim, num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.kernel_for(torch.device("cpu"))  # an unknown word fails here

    def embed(self, images: Tensor) -> Tensor:
        x = self.stem(images)  # (B, D, h, w)
        grid = (x.shape[2], x.shape[3])
        if images.shape[-2] % self.strides[0] or images.shape[-1] % self.strides[0]:
            given, patch = "x".join(map(str, images.shape[-2:])), self.strides[0]
            raise ConfigError(
                f"images of {given} pixels do not split into patches of {patch}; sides must be multiples of {patch}; "
                f"use size={max(images.shape[-1] // patch, 1) * patch}, or data.sampler=packed, which resizes each"
            )
        places = grid_places(grid, x.device)
        grids = torch.tensor(grid, device=x.device).expand_as(places)
        return self.dropout(x.flatten(2).transpose(1, 2) + self.position(places, grids))  # (B, h*w, D)

    def pool(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.attention_pool(x)
        return pooled

    def forward(self, images: Tensor | PackedImages) -> Tensor:
        """Logits (B, K), or (images, K) in the order in which images stand in their sequences."""
        if isinstance(images, PackedImages):
            return self.head(self.read(images))
        return super().forward(images)

    def read(self, images: PackedImages) -> Tensor:
        """The features of each image that the head reads: (images, D)."""
        half = torch.is_autocast_enabled(images.patches.device.type) or images.patches.dtype != torch.float32
        layout = lay_out(images, self.kernel_for(images.patches.device, half=half))
        stem = self.stem.projection
        x = F.linear(layout.patches, stem.weight.flatten(1), stem.bias)  # (B, L, D)
        x = self.dropout(x + self.position(layout.places, layout.grids))
        for block in self.blocks:
            x = block(x, mask=layout.documents)
        pooled: Tensor = self.attention_pool(self.norm(x), layout.documents)
        return pooled if layout.order is None else pooled[layout.order]

    def kernel_for(self, device: torch.device, *, half: bool = False) -> str:
        """The kernel that packed sequences are attended by on a device."""
        attention = self.blocks[0].get_submodule("attention")
        return choose_kernel(
            self.kernel,
            device=device,
            half=half,
            trains=torch.is_grad_enabled(),
            dropout=self.training and isinstance(attention, DenseAttention) and attention.dropout_rate > 0,
            documents=flags_of(attention).takes_documents,
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """The final tokens as one map (B, D, h, w), of any size of image."""
        height, width = (side // self.strides[0] for side in images.shape[-2:])
        return [self.encode(images).transpose(1, 2).unflatten(2, (height, width))]

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """A position table with another number of entries, read between them."""
        if name not in ("position.rows", "position.columns") or tensor.ndim != 2:
            return None
        if tensor.shape[1] != self.get_parameter(name).shape[1]:
            return None
        how = f"resized from {len(tensor)} to {self.position.max_grid} entries (linear)"
        return self.position.resize(tensor), how


@dataclass(frozen=True)
class Layout:
    """Packed images as a kernel wants them. `order`: where each image is among the pooled ones, None if in place."""

    patches: Tensor
    places: Tensor
    grids: Tensor
    documents: Documents
    order: Tensor | None


def lay_out(images: PackedImages, kernel: str) -> Layout:
    """Sequences as they are; for kernels without padding one sequence of all images, those of one length together."""
    device = images.owner.device
    if kernel not in FLAT:
        slots = max(map(len, images.lengths))
        present = torch.tensor([[slot < len(row) for slot in range(slots)] for row in images.lengths], device=device)
        documents = Documents(kernel, images.owner, (), present)
        return Layout(images.patches, images.places, images.grids, documents, None)
    length = images.owner.shape[1]
    counts, starts = [], []
    for row, tokens in enumerate(images.lengths):
        start = row * length
        for count in tokens:
            counts.append(count)
            starts.append(start)
            start += count
    by_length = sorted(range(len(counts)), key=counts.__getitem__)
    index = torch.cat([torch.arange(starts[image], starts[image] + counts[image]) for image in by_length]).to(device)
    sorted_counts = [counts[image] for image in by_length]
    owner = torch.repeat_interleave(torch.tensor(sorted_counts)).to(device)[None]  # (1, T)
    present = torch.ones(1, len(counts), dtype=torch.bool, device=device)
    documents = Documents(kernel, owner, sorted_counts, present)
    patches, places, grids = (x.flatten(0, 1)[index][None] for x in (images.patches, images.places, images.grids))
    order = torch.tensor(by_length).argsort().to(device)
    return Layout(patches, places, grids, documents, order)


def check_attention(attention: Callable[..., nn.Module]) -> None:
    """Raise ConfigError for an attention that cannot keep the images of a sequence apart."""
    variant = flags_of(attention)
    if not variant.takes_mask or variant.needs_grid:
        raise ConfigError(
            f"attention={variant.name} has no map of weights to mask, and model=navit_* keeps the images of"
            " a sequence apart by a mask; use attention=qknorm, softmax, cosine or reattention"
        )
