"""A small hybrid ViT, and timm's of the same geometry; not a test itself."""

from functools import partial
from typing import Any

from tests.tiny import randomise, tiny_vit
from vitexp.layer.resnet_stem import ResNetStem
from vitexp.model.vit import ViT

WIDTH = 64  # timm's is fixed


def resnet_stem(depths: Any = (1, 2), projection: int = 1, patch_size: int = 8) -> Any:
    return partial(
        ResNetStem,
        depths=depths,
        width=WIDTH,
        projection=projection,
        norm_groups=32,
        norm_eps=1e-5,
        patch_size=patch_size,
    )


def tiny_hybrid(depths: Any = (1, 2), *, image_size: int = 32, projection: int = 1, patch_size: int = 8) -> ViT:
    return tiny_vit(image_size=image_size, stem=resnet_stem(depths, projection, patch_size))


def timm_hybrid(depths: Any = (1, 2), *, image_size: int = 32, projection: int = 1) -> Any:
    import timm
    from timm.models.vision_transformer_hybrid import _resnetv2

    embed = partial(timm.layers.HybridEmbed, backbone=_resnetv2(depths))
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=image_size,
        patch_size=projection,
        embed_layer=embed,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_classes=5,
    )
    return randomise(model, seed=4).eval()
