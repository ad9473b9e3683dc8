"""Vision Transformer: Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), equations 1 to 4.

Starting values are those of the authors' code: Xavier-uniform projections, LeCun-normal patches, positions from
N(0, 0.02), a zero class token; but the head starts at N(0, 0.02), and at zero only when it replaces a trained one.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitexp.attention.base import flags_of
from vitexp.errors import ConfigError
from vitexp.layer.patch_embed import patch_grid
from vitexp.model.encoder import NORM_EPS, Block, TokenEncoder, drop_path_rates


class ViT(TokenEncoder):
    """Patches, learned positions, pre-norm blocks, a norm, and a linear head on the class token or the mean token.

    Args:
        image_size: pixels, one side or (height, width).
        stem: `stem(in_channels=..., dim=...)` -> module from images to a map (B, D, h, w), with `patch_size`.
        attention: `attention(dim, num_heads, grid=...)`, called once a block; or a list of these, one for each block.
        pool: `token` adds a class token and reads it; `mean` has none and reads the mean of the normed tokens.
        dropout: after positions, attention and both layers of each MLP.
        drop_path_rate: of the last block, growing linearly from 0.

    Raises:
        ConfigError: sizes that do not divide, an unknown pool, an attention that cannot work here.
    """

    family: ClassVar[str] = "vit"

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
        attention: Callable[..., nn.Module] | Sequence[Callable[..., nn.Module]],
        num_classes: int,
        pool: str,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        variants = list(attention) if isinstance(attention, Sequence) else [attention] * depth
        for variant in variants:
            check_pool(pool, variant)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_size = (height, width)
        self.stem = stem(in_channels=in_channels, dim=dim)
        self.grid = patch_grid(self.image_size, self.stem.patch_size)
        self.strides = (self.stem.patch_size,)
        self.pooling = pool
        self.num_prefix = 1 if pool == "token" else 0
        self.num_classes = num_classes
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if pool == "token" else None
        self.position = nn.Parameter(torch.empty(1, self.num_prefix + self.grid[0] * self.grid[1], dim))
        self.position_tables = {"position": self.num_prefix}
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                num_heads,
                grid=self.grid,
                attention=variant,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                drop_path_rate=rate,
            )
            for variant, rate in zip(variants, drop_path_rates(drop_path_rate, depth), strict=True)
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Linear(dim, num_classes)
        nn.init.normal_(self.position, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def embed(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != self.image_size:
            given, built = "x".join(map(str, images.shape[-2:])), "x".join(map(str, self.image_size))
            raise ConfigError(f"images of {given} pixels reached a model built for {built}; resize them or use size=")
        x = self.stem(images).flatten(2).transpose(1, 2)  # (B, h*w, D)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)  # (B, 1 + h*w, D)
        return self.dropout(x + self.position)

    def place(self, token: Tensor) -> Tensor:
        """A class token (1, T, D) as `embed` hands it to the first block: at the position of the model's own."""
        return token + self.position[:, :1]

    def pool(self, x: Tensor) -> Tensor:
        return x[:, 0] if self.pooling == "token" else x.mean(dim=1)  # (B, D)


def check_pool(pool: str, attention: Callable[..., nn.Module]) -> None:
    """Raise ConfigError for an unknown pool, or a class token that the attention has no place for."""
    if pool not in ("token", "mean"):
        raise ConfigError(f"model.pool={pool} is unknown; a ViT reads its class token or the mean; use token or mean")
    if pool == "token" and flags_of(attention).needs_grid:
        raise ConfigError(
            f"attention={flags_of(attention).name} works on the cells of a grid, and model.pool=token adds a token "
            "that has no cell; it needs mean pooling; use model.pool=mean, or attention=softmax"
        )
