"""Foreign names of a DETR's tensors: the authors' (facebookresearch/detr) and Hugging Face's, 5.x and before."""

from vitexp.checkpoint.origin import Origin, Tensors, pair, rename, stack_qkv

# Pairs (ours, theirs) as `pair` takes them: what begins a name, then what stands inside a layer.
_OFFICIAL = (
    ("^backbone.", "^backbone.0.body."),
    ("^position.rows", "^backbone.1.row_embed.weight"),
    ("^position.columns", "^backbone.1.col_embed.weight"),
    ("^project.", "^input_proj."),
    ("^queries", "^query_embed.weight"),
    ("^norm.", "^transformer.decoder.norm."),
    ("^head.classes.", "^class_embed."),
    ("^head.boxes.", "^bbox_embed."),
    ("^encoder.#.", "^transformer.encoder.layers.#."),
    ("^decoder.#.", "^transformer.decoder.layers.#."),
    ("encoder.layers.#.attention.variant.", "encoder.layers.#.self_attn."),
    ("decoder.layers.#.self_attention.variant.", "decoder.layers.#.self_attn."),
    (".cross_attention.variant.", ".multihead_attn."),
    ("attn.qkv_projection.", "attn.in_proj_"),
    ("attn.out.", "attn.out_proj."),
    (".mlp.fc#.", ".linear#."),
)
_HF = (
    ("^backbone.", "^model.backbone.model."),
    ("^position.rows", "^model.position_embedding.row_embeddings.weight"),
    ("^position.columns", "^model.position_embedding.column_embeddings.weight"),
    ("^project.", "^model.input_projection."),
    ("^queries", "^model.query_position_embeddings.weight"),
    ("^norm.", "^model.decoder.layernorm."),
    ("^head.classes.", "^class_labels_classifier."),
    ("^head.boxes.", "^bbox_predictor."),
    ("^encoder.#.", "^model.encoder.layers.#."),
    ("^decoder.#.", "^model.decoder.layers.#."),
    ("encoder.layers.#.attention.variant.", "encoder.layers.#.self_attn."),
    ("decoder.layers.#.self_attention.variant.", "decoder.layers.#.self_attn."),
    (".cross_attention.variant.", ".encoder_attn."),
    ("encoder.layers.#.norm2.", "encoder.layers.#.final_layer_norm."),
    ("decoder.layers.#.norm2.", "decoder.layers.#.encoder_attn_layer_norm."),
    ("decoder.layers.#.norm3.", "decoder.layers.#.final_layer_norm."),
    ("attn.qkv_projection.", "attn.qkv."),
    ("attn.out.", "attn.o_proj."),
    (".norm1.", ".self_attn_layer_norm."),
)
# Of a file by Hugging Face before 5.x, as 5.x names it; the base model alone has no `model.` in front.
_OLD_HF = (
    (r"^(?!model\.|class_|bbox_)", "model."),
    (r"\.backbone\.conv_encoder\.model\.", ".backbone.model."),
    (r"\.backbone\.position_embedding\.", ".position_embedding."),
    (r"_attn\.out_proj\.", "_attn.o_proj."),
    (r"(layers\.\d+)\.fc([12])\.", r"\1.mlp.fc\2."),
)


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as the authors': timm has no DETR."""
    return pair(tensors, _OFFICIAL)


def _from_official(tensors: Tensors) -> Tensors:
    return pair(tensors, _OFFICIAL, back=True)


def _from_hf(tensors: Tensors) -> Tensors:
    """Our names, with the three projections of each attention as one; a triple with a gap stays and is reported."""
    renamed = pair(rename(tensors, _OLD_HF), _HF, back=True)
    return stack_qkv(renamed, ("q_proj", "k_proj", "v_proj"), inside="variant")


def to_hf(tensors: Tensors) -> Tensors:
    """Our names as Hugging Face's 5.x."""
    renamed: Tensors = {}
    for name, tensor in pair(tensors, _HF).items():
        prefix, found, suffix = name.partition("_attn.qkv.")
        parts = tensor.chunk(3) if found else ()
        renamed |= {f"{prefix}_attn.{part}_proj.{suffix}": chunk for part, chunk in zip("qkv", parts, strict=False)}
        if not found:
            renamed[name] = tensor
    return renamed


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
