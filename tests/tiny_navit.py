"""A small NaViT and images for it, as several test folders build them; not a test itself."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.tiny import patch_stem, randomise
from vitexp.attention.qknorm import QkNorm
from vitexp.batch import PackedImages, grid_places, pack_images, to_patches
from vitexp.layer.factorised_position import FactorisedPosition
from vitexp.model.navit import NaViT

PATCH = 4
SIZES = [(8, 12), (16, 16), (4, 20), (12, 8), (8, 12), (20, 4)]


def tiny_navit(*, attention: Any = None, kernel: str = "auto", dim: int = 16, **position: Any) -> NaViT:
    torch.manual_seed(0)
    settings = {
        "kind": "learned",
        "coordinates": "absolute",
        "max_grid": 8,
        "combine": "add",
        "temperature": 100.0,
        "frequency": 3.0,
    }
    model = NaViT(
        image_size=16,
        in_channels=3,
        stem=patch_stem(PATCH),
        dim=dim,
        depth=2,
        num_heads=2,
        mlp_ratio=2.0,
        attention=attention or partial(QkNorm, qkv_bias=False, eps=1e-6),
        position=partial(FactorisedPosition, **{**settings, **position}),
        kernel=kernel,
        num_classes=5,
    )
    randomise(model)
    return model.eval()


def images(sizes: Any = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=generator) for size in sizes]


def tokens_of(image: Tensor, kept: Any = None) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """An image as `pack_images` takes it, with only the tokens `kept`."""
    grid = (image.shape[1] // PATCH, image.shape[2] // PATCH)
    patches, places = to_patches(image, PATCH), grid_places(grid)
    return (patches, places, grid) if kept is None else (patches[kept], places[kept], grid)


def packed(rows: list[list[Tensor]], length: int = 32) -> PackedImages:
    return pack_images([[tokens_of(image) for image in row] for row in rows], length=length, patch_size=PATCH)
