"""Small models that several test folders build; not a test itself."""

from functools import partial
from typing import Any

import torch

from vitexp.attention.softmax import Softmax
from vitexp.layer.conv_stem import ConvStem
from vitexp.layer.patch_embed import PatchEmbed
from vitexp.model.vit import ViT


def patch_stem(patch_size: int) -> Any:
    return partial(PatchEmbed, patch_size=patch_size)


def conv_stem(patch_size: int) -> Any:
    return partial(ConvStem, channels=[4, 8], patch_size=patch_size)


def tiny_vit(
    *,
    seed: int = 0,
    image_size: Any = 16,
    stem: Any = None,
    dim: int = 16,
    depth: int = 2,
    num_heads: int = 2,
    num_classes: int = 5,
    pool: str = "token",
    attention: Any = None,
    dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> ViT:
    torch.manual_seed(seed)
    return ViT(
        image_size=image_size,
        in_channels=3,
        stem=stem or patch_stem(4),
        dim=dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=4.0,
        attention=attention or partial(Softmax, qkv_bias=True, temperature=1.0),
        num_classes=num_classes,
        pool=pool,
        dropout=dropout,
        drop_path_rate=drop_path_rate,
    )


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Values that tell tensors apart: no zeros, no symmetry, no unit norms."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model
