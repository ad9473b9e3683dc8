"""Foreign names of a Swin V2's tensors: the authors' files, timm, Hugging Face.

Merging opens a stage here and in timm and closes the one before in the two others. Not stored here: the authors' tables
of offsets, pairs and masks, which follow from the window.
"""

import re

from vitexp.checkpoint.origin import Origin, Tensors, pair, rename, stack_qkv

_TIMM = (
    ("^stem.projection.", "^patch_embed.proj."),
    ("^stem_norm.", "^patch_embed.norm."),
    ("^stages.", "^layers."),
    (".merge.", ".downsample."),
    (".attention.qkv_projection.q_bias", ".attn.q_bias"),
    (".attention.qkv_projection.v_bias", ".attn.v_bias"),
    (".attention.qkv_projection.", ".attn.qkv."),
    (".attention.logit_scale", ".attn.logit_scale"),
    (".attention.out.", ".attn.proj."),
    (".bias.fc1.", ".attn.cpb_mlp.0."),
    (".bias.fc2.", ".attn.cpb_mlp.2."),
    (".bias.table", ".attn.relative_position_bias_table"),
    ("^head.", "^head.fc."),
)
_HF = (
    (r"^swinv2\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.attention\.self\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.self\.logit_scale$", ".attn.logit_scale"),
    (r"\.attention\.self\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)
_HF_ATTENTION = (
    (r"\.attn\.qkv_projection\.", ".attn.qkv."),
    (r"\.attn\.query\.bias$", ".attn.q_bias"),
    (r"\.attn\.value\.bias$", ".attn.v_bias"),
)
_DERIVED = re.compile(r"\.(relative_coords_table|relative_position_index|attn_mask)$")


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as timm's."""
    return pair(tensors, _TIMM)


def _from_timm(tensors: Tensors) -> Tensors:
    return pair(tensors, _TIMM, back=True)


def _from_official(tensors: Tensors) -> Tensors:
    """The authors' names, those of older SimMIM files included; what follows from the window is left out."""
    kept = {name: tensor for name, tensor in tensors.items() if not _DERIVED.search(name)}
    renamed = rename(kept, [(r"\.rpe_mlp\.", ".cpb_mlp."), (r"^head\.", "head.fc.")])
    return _from_timm({_next_stage(name): tensor for name, tensor in renamed.items()})


def _next_stage(name: str) -> str:
    """A merging that closes a stage, as the one that opens the next."""
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample.", name)


def _from_hf(tensors: Tensors) -> Tensors:
    stacked = stack_qkv(rename(tensors, _HF), ("query", "key", "value"), inside="attn")
    return _from_official(rename(stacked, _HF_ATTENTION))


ORIGINS = (
    # The authors' first: only there is a merging of stage 0, and timm's marker would match the others.
    Origin(name="Microsoft", marker=r"^layers\.0\.downsample\.", position_method="official", translate=_from_official),
    Origin(
        name="Hugging Face",
        marker=r"^(swinv2\.)?embeddings\.patch_embeddings\.",
        position_method="hf",
        translate=_from_hf,
    ),
    Origin(name="timm", marker=r"^patch_embed\.proj\.", position_method="timm", translate=_from_timm),
)
