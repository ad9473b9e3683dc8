"""Foreign names of a DETR's tensors: the authors' (facebookresearch/detr) and Hugging Face's, 5.x and before."""

import torch

from vitexp.checkpoint.origin import Origin, Tensors, rename

_OFFICIAL = (
    (r"^backbone\.0\.body\.", "backbone."),
    (r"^backbone\.1\.row_embed\.weight$", "position.rows"),
    (r"^backbone\.1\.col_embed\.weight$", "position.columns"),
    (r"^input_proj\.", "project."),
    (r"^query_embed\.weight$", "queries"),
    (r"^transformer\.decoder\.norm\.", "norm."),
    (r"^transformer\.(encoder|decoder)\.layers\.(\d+)\.", r"\1.\2."),
    (r"^(encoder\.\d+)\.self_attn\.", r"\1.attention.variant."),
    (r"^(decoder\.\d+)\.self_attn\.", r"\1.self_attention.variant."),
    (r"^(decoder\.\d+)\.multihead_attn\.", r"\1.cross_attention.variant."),
    (r"\.in_proj_(weight|bias)$", r".qkv_projection.\1"),
    (r"\.out_proj\.(weight|bias)$", r".out.\1"),
    (r"\.linear([12])\.", r".mlp.fc\1."),
    (r"^class_embed\.", "head.classes."),
    (r"^bbox_embed\.", "head.boxes."),
)
_TO_OFFICIAL = (
    (r"^backbone\.", "backbone.0.body."),
    (r"^position\.rows$", "backbone.1.row_embed.weight"),
    (r"^position\.columns$", "backbone.1.col_embed.weight"),
    (r"^project\.", "input_proj."),
    (r"^queries$", "query_embed.weight"),
    (r"^norm\.", "transformer.decoder.norm."),
    (r"^(encoder|decoder)\.(\d+)\.", r"transformer.\1.layers.\2."),
    (r"(encoder\.layers\.\d+)\.attention\.variant\.", r"\1.self_attn."),
    (r"\.self_attention\.variant\.", ".self_attn."),
    (r"\.cross_attention\.variant\.", ".multihead_attn."),
    (r"\.qkv_projection\.(weight|bias)$", r".in_proj_\1"),
    (r"_attn\.out\.(weight|bias)$", r"_attn.out_proj.\1"),
    (r"\.mlp\.fc([12])\.", r".linear\1."),
    (r"^head\.classes\.", "class_embed."),
    (r"^head\.boxes\.", "bbox_embed."),
)
_HF = (
    (r"^model\.", ""),
    (r"^backbone\.(conv_encoder\.)?model\.", "backbone."),
    (r"^(backbone\.)?position_embedding\.row_embeddings\.weight$", "position.rows"),
    (r"^(backbone\.)?position_embedding\.column_embeddings\.weight$", "position.columns"),
    (r"^input_projection\.", "project."),
    (r"^query_position_embeddings\.weight$", "queries"),
    (r"^decoder\.layernorm\.", "norm."),
    (r"^(encoder|decoder)\.layers\.(\d+)\.", r"\1.\2."),
    (r"^(encoder\.\d+)\.self_attn\.", r"\1.attention.variant."),
    (r"^(decoder\.\d+)\.self_attn\.", r"\1.self_attention.variant."),
    (r"\.encoder_attn\.", ".cross_attention.variant."),
    (r"\.variant\.(o_proj|out_proj)\.", ".variant.out."),
    (r"\.(mlp\.)?fc([12])\.", r".mlp.fc\2."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"^(encoder\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"^(decoder\.\d+)\.final_layer_norm\.", r"\1.norm3."),
    (r"^class_labels_classifier\.", "head.classes."),
    (r"^bbox_predictor\.", "head.boxes."),
)


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as the authors': timm has no DETR."""
    return rename(tensors, _TO_OFFICIAL)


def _from_official(tensors: Tensors) -> Tensors:
    return rename(tensors, _OFFICIAL)


def _from_hf(tensors: Tensors) -> Tensors:
    """Renamed, and the three projections of each attention as one; a triple with a gap stays and is reported."""
    renamed = rename(tensors, _HF)
    stacked = dict(renamed)
    for name in renamed:
        prefix, found, suffix = name.partition(".variant.q_proj.")
        triple = [f"{prefix}.variant.{part}_proj.{suffix}" for part in "qkv"]
        if found and all(member in renamed for member in triple):
            stacked[f"{prefix}.variant.qkv_projection.{suffix}"] = torch.cat([stacked.pop(m) for m in triple])
    return stacked


def to_hf(tensors: Tensors) -> Tensors:
    """Our names as Hugging Face's 5.x."""
    renamed: Tensors = {}
    for name, tensor in rename(tensors, _TO_HF).items():
        prefix, found, suffix = name.partition("_attn.qkv.")
        parts = tensor.chunk(3) if found else ()
        renamed |= {f"{prefix}_attn.{part}_proj.{suffix}": chunk for part, chunk in zip("qkv", parts, strict=False)}
        if not found:
            renamed[name] = tensor
    return renamed


_TO_HF = (
    (r"^backbone\.", "model.backbone.model."),
    (r"^position\.rows$", "model.position_embedding.row_embeddings.weight"),
    (r"^position\.columns$", "model.position_embedding.column_embeddings.weight"),
    (r"^project\.", "model.input_projection."),
    (r"^queries$", "model.query_position_embeddings.weight"),
    (r"^norm\.", "model.decoder.layernorm."),
    (r"^(encoder|decoder)\.(\d+)\.", r"model.\1.layers.\2."),
    (r"(encoder\.layers\.\d+)\.attention\.variant\.", r"\1.self_attn."),
    (r"\.self_attention\.variant\.", ".self_attn."),
    (r"\.cross_attention\.variant\.", ".encoder_attn."),
    (r"_attn\.qkv_projection\.", "_attn.qkv."),
    (r"_attn\.out\.", "_attn.o_proj."),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"\.norm3\.", ".final_layer_norm."),
    (r"^head\.classes\.", "class_labels_classifier."),
    (r"^head\.boxes\.", "bbox_predictor."),
)

ORIGINS = (
    Origin(
        name="facebookresearch/detr",
        marker=r"^transformer\.encoder\.layers\.0\.self_attn\.in_proj_weight$",
        position_method="official",
        translate=_from_official,
        dropped=r"\.num_batches_tracked$",
    ),
    Origin(
        name="Hugging Face",
        marker=r"^(model\.)?query_position_embeddings\.weight$",
        position_method="hf",
        translate=_from_hf,
        dropped=r"\.num_batches_tracked$",
    ),
)
