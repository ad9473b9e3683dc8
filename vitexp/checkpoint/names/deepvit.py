"""Foreign names of a DeepViT's tensors: the authors' (zhoudaquan/dvit_repo), which are timm's and a few more.

timm has no DeepViT. Where nothing of one is in the model (softmax in all blocks, a linear patch), it is timm's ViT.
"""

from vitexp.checkpoint.names import vit as names_vit
from vitexp.checkpoint.origin import Origin, Tensors, rename

_OFFICIAL = (
    (r"^patch_embed\.conv(\d)\.", r"stem.conv\1.conv."),
    (r"^patch_embed\.bn(\d)\.", r"stem.conv\1.norm."),
    (r"\.attn\.reatten_matrix\.", ".attention.theta."),
    (r"\.attn\.var_norm\.", ".attention.norm."),
)


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as timm's.

    Raises:
        CheckpointError: timm has no such model.
    """
    return names_vit.to_timm(tensors)


def _from_official(tensors: Tensors) -> Tensors:
    return names_vit.from_timm(rename(tensors, _OFFICIAL))


ORIGINS = (
    Origin(
        name="timm or the authors' dvit",
        marker=r"^patch_embed\.proj\.",
        position_method="timm",
        translate=_from_official,
    ),
)
