"""Small models that several test folders build; not a test itself."""

from functools import partial
from typing import Any

import torch

from vitexp.attention.cosine import Cosine
from vitexp.attention.softmax import Softmax
from vitexp.layer.conv_stem import ConvStem
from vitexp.layer.patch_embed import PatchEmbed
from vitexp.model.swinv2 import SwinV2, WindowPlan
from vitexp.model.swinv2_block import SwinBlock
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


def tiny_swinv2(
    *,
    seed: int = 0,
    image_size: Any = 32,
    stem: Any = None,
    depths: Any = (2, 2),
    num_heads: Any = (2, 4),
    window: int = 4,
    pretrained_size: Any = None,
    clamp: str = "axis",
    padding: str = "masked",
    norm: str = "res_post",
    bias: str = "cpb_log",
    bias_hidden_dim: int = 16,
    attention: Any = None,
    chunk: int = 0,
    extra_norm_every: int = 0,
    drop_path_rate: float = 0.0,
) -> SwinV2:
    torch.manual_seed(seed)
    cosine = partial(Cosine, qkv_bias=True, scale=10.0, max_scale=100.0, chunk=chunk)
    return SwinV2(
        image_size=image_size,
        in_channels=3,
        stem=stem or patch_stem(4),
        dim=8,
        depths=depths,
        num_heads=num_heads,
        window=WindowPlan(size=window, pretrained_size=pretrained_size, clamp=clamp, padding=padding),
        block=partial(SwinBlock, norm=norm, bias=bias, bias_hidden_dim=bias_hidden_dim, mlp_ratio=4.0),
        attention=attention or cosine,
        extra_norm_every=extra_norm_every,
        num_classes=5,
        drop_path_rate=drop_path_rate,
    )
