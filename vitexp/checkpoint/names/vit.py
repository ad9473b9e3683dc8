"""Foreign names of a ViT's tensors: timm, Hugging Face (5.x and before), and the authors' `.npz` files; hybrids too.

Two layouts of the authors' are known: google-research/vision_transformer (`Transformer/encoderblock_0/...`) and
big_vision (a `params/` prefix, other sub-indices, layers perhaps stacked, no position for the class token).
"""

import re

from torch import Tensor

from vitexp.checkpoint.origin import Origin, Tensors, pair, rename, stack_qkv
from vitexp.errors import CheckpointError

_TIMM = (
    ("stem.projection.", "patch_embed.proj."),
    ("class_token", "cls_token"),
    ("position", "pos_embed"),
    (".attention.qkv_projection.", ".attn.qkv."),
    (".attention.out.", ".attn.proj."),
)
_TIMM_HYBRID = (
    (r"^patch_embed\.backbone\.(?:stem\.)?(conv|norm)\.", r"stem.root.\1."),
    (r"^patch_embed\.backbone\.stages\.(\d+)\.blocks\.(\d+)\.downsample\.", r"stem.units.\1.\2.shortcut."),
    (r"^patch_embed\.backbone\.stages\.(\d+)\.blocks\.(\d+)\.(conv|norm)(\d)\.", r"stem.units.\1.\2.conv\4.\3."),
)
_HF_HYBRID = (  # a BiT backbone, whose convolutions and norms stand side by side
    (r"^embeddings\.patch_embeddings\.backbone\.bit\.embedder\.convolution\.", "stem.root.conv."),
    (r"^embeddings\.patch_embeddings\.backbone\.bit\.embedder\.norm\.", "stem.root.norm."),
    (r"^embeddings\.patch_embeddings\.backbone\.bit\.encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"stem.units.\1.\2."),
    (r"^(stem\.units\..*)downsample\.", r"\1shortcut."),
    (r"^(stem\.units\..*)(conv|norm)(\d)\.", r"\1conv\3.\2."),
)
_HF = (
    (r"^vit\.", ""),
    *_HF_HYBRID,
    (r"^embeddings\.cls_token$", "class_token"),
    (r"^embeddings\.position_embeddings$", "position"),
    (r"^embeddings\.patch_embeddings\.projection\.", "stem.projection."),
    (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.(q|k|v)_proj\.", r".attention.\1."),
    (r"\.attention\.(o_proj|output\.dense)\.", ".attention.out."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)
_NPZ = (
    (r"^(opt/target/|params/img/|params/)", ""),
    (r"^conv_root/", "stem.root.conv/"),
    (r"^gn_root/", "stem.root.norm/"),
    (r"^block(\d+)/unit(\d+)/", lambda found: f"stem.units.{int(found[1]) - 1}.{int(found[2]) - 1}."),
    (r"(stem\.units\..*)conv_proj/", r"\1shortcut.conv/"),
    (r"(stem\.units\..*)gn_proj/", r"\1shortcut.norm/"),
    (r"(stem\.units\..*)conv(\d)/", r"\1conv\2.conv/"),
    (r"(stem\.units\..*)gn(\d)/", r"\1conv\2.norm/"),
    (r"^cls$", "class_token"),
    (r"^(Transformer/posembed_input/pos_embedding|pos_embedding)$", "position"),
    (r"^embedding/", "stem.projection/"),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"LayerNorm_0/", "norm1/"),
    (r"LayerNorm_[12]/", "norm2/"),
    (r"(MultiHeadDotProductAttention|MHDPA)_\d/", "attention."),
    (r"MlpBlock_\d/Dense_0/", "mlp.fc1/"),
    (r"MlpBlock_\d/Dense_1/", "mlp.fc2/"),
    (r"^Transformer/encoder_norm/", "norm/"),
    (r"/(kernel|scale)$", ".weight"),
    (r"/bias$", ".bias"),
)


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as timm's.

    Raises:
        CheckpointError: a part that timm's ViT has not, such as another attention or another stem.
    """
    stem = "stem." if any(name.startswith("stem.units.") for name in tensors) else ""  # timm's root alone has none
    hybrid = (
        (r"^stem\.root\.", f"patch_embed.backbone.{stem}"),
        (r"^stem\.units\.(\d+)\.(\d+)\.shortcut\.", r"patch_embed.backbone.stages.\1.blocks.\2.downsample."),
        (r"^stem\.units\.(\d+)\.(\d+)\.conv(\d)\.(conv|norm)\.", r"patch_embed.backbone.stages.\1.blocks.\2.\4\3."),
    )
    renamed = pair(rename(tensors, hybrid), _TIMM)
    ours = [name for name in renamed if ".attention." in name or name.startswith("stem.")]
    if ours:
        raise CheckpointError(
            f"timm has no such model: {ours[0]} and {len(ours) - 1} more tensors have no place in its ViT, which has "
            "softmax attention behind linear patches; use to=safetensors, or train model=vit_s16 attention=softmax"
        )
    return renamed


def from_timm(tensors: Tensors) -> Tensors:
    """Timm's names as ours."""
    return pair(rename(tensors, _TIMM_HYBRID), _TIMM, back=True)


def _from_hf(tensors: Tensors) -> Tensors:
    return stack_qkv(rename(tensors, _HF), ("query", "key", "value") if _old_hf(tensors) else ("q", "k", "v"))


def _old_hf(tensors: Tensors) -> bool:
    return any(".attention.attention." in name for name in tensors)


def _from_npz(tensors: Tensors) -> Tensors:
    tensors = _unstack_layers(tensors)
    renamed = {name: _from_flax(name, tensor) for name, tensor in rename(tensors, _NPZ).items()}
    return stack_qkv(renamed, ("query", "key", "value"))


def _unstack_layers(tensors: Tensors) -> Tensors:
    """Arrays (L, ...) of big_vision's scanned blocks as one array a block."""
    marker = "Transformer/encoderblock/"
    split: Tensors = {}
    for name, tensor in tensors.items():
        if marker not in name:
            split[name] = tensor
            continue
        for index, layer in enumerate(tensor):
            split[name.replace(marker, f"Transformer/encoderblock_{index}/")] = layer
    return split


def _from_flax(name: str, tensor: Tensor) -> Tensor:
    """One array in PyTorch's layout: kernels are (..., in, out) there, heads an axis of their own."""
    if ".attention.out.weight" in name:
        return tensor.flatten(0, -2).T  # (H, d, D) -> (D, D)
    if re.search(r"\.attention\.(query|key|value)\.", name):
        return tensor.flatten(-2).T if name.endswith("weight") else tensor.flatten()  # (D, H, d) -> (D, D)
    if ".norm." in name:
        return tensor.flatten()  # old files keep a group norm's as (1, 1, 1, C)
    if name.endswith("weight") and tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
    if name.endswith("weight") and tensor.ndim == 2:
        return tensor.T
    return tensor


ORIGINS = (
    Origin(
        name="timm",
        marker=r"^patch_embed\.proj\.",
        position_method="timm",
        translate=from_timm,
        dropped=r"^pre_logits\.",
    ),
    Origin(
        name="Hugging Face",
        marker=r"^(vit\.)?embeddings\.patch_embeddings\.",
        position_method="hf",
        translate=_from_hf,
        dropped=r"^(vit\.)?pooler\.",
    ),
    Origin(
        name="Google .npz",
        marker=r"^(opt/target/|params/img/|params/)?embedding/kernel$",
        position_method="official",
        translate=_from_npz,
        dropped=r"^(opt/target/|params/img/|params/)?pre_logits/",
    ),
)
