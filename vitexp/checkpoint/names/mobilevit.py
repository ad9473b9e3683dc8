"""Foreign names of a MobileViT's tensors: timm, Hugging Face, and the authors' ml-cvnets.

The authors' first release reads images as BGR, and its published weights, which Hugging Face took over with a processor
that turns the channels, expect that; timm's copy has been turned already. Here every model takes RGB: the first
convolution is turned on loading, and a printed line says so. All three take pixels in 0..1 without mean and std.
"""

from torch import Tensor

from vitexp.checkpoint.origin import Origin, Tensors, pair, rename, stack_qkv

PIXELS = "pixels: the weights expect 0..1, that is data.mean=[0,0,0] data.std=[1,1,1], which model= sets by itself"
TURNED = "stem.conv.weight: turned from BGR to RGB, the published weights of this origin were trained on BGR"
_STEM = "stem.conv.weight"

# Ours and timm's, but for the norms that follow a convolution: `norm` here, `bn` there.
_TIMM = (
    (".expand.", ".conv1_1x1."),
    (".depthwise.", ".conv2_kxk."),
    (".project.", ".conv3_1x1."),
    (".local.", ".conv_kxk."),
    (".enter.", ".conv_1x1."),
    (".layers.", ".transformer."),
    (".attention.qkv_projection.", ".attn.qkv."),
    (".attention.out.", ".attn.proj."),
    (".leave.", ".conv_proj."),
    (".fusion.", ".conv_fusion."),
)
_ENDS = (("^last.", "^final_conv."), ("^head.", "^head.fc."))
# Stages and inverted residuals, as v2 has them too.
HF_COMMON = (
    (r"^mobilevit(v2)?\.", ""),
    (r"^conv_stem\.", "stem."),
    (r"^encoder\.layer\.(\d)\.layer\.(\d)\.", r"stages.\1.\2."),
    (r"^encoder\.layer\.(\d)\.downsampling_layer\.", r"stages.\1.0."),
    (r"^encoder\.layer\.(\d)\.", r"stages.\1.1."),
    (r"\.expand_1x1\.", ".expand."),
    (r"\.conv_3x3\.", ".depthwise."),
    (r"\.reduce_1x1\.", ".project."),
    (r"\.conv_1x1\.convolution\.", ".enter."),
    (r"\.conv_kxk\.", ".local."),
    (r"\.transformer\.layer\.", ".layers."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layernorm\.", ".norm."),
    (r"\.conv_projection\.", ".leave."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".norm."),
    (r"^classifier\.", "head."),
)
_HF = (
    *HF_COMMON,
    (r"\.attention\.attention\.", ".attention."),
    (r"\.attention\.output\.dense\.", ".attention.out."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^conv_1x1_exp\.", "last."),
)
CVNETS_COMMON = (
    (r"^encoder\.", ""),
    (r"^conv_1\.block\.", "stem."),
    *((rf"^layer_{index + 1}\.", f"stages.{index}.") for index in range(5)),
    (r"\.block\.exp_1x1\.block\.", ".expand."),
    (r"\.block\.conv_3x3\.block\.", ".depthwise."),
    (r"\.block\.red_1x1\.block\.", ".project."),
    (r"\.global_rep\.(\d+)\.(weight|bias)$", r".norm.\2"),
    (r"\.global_rep\.(\d+)\.", r".layers.\1."),
    (r"\.pre_norm_(mha|attn)\.0\.", ".norm1."),
    (r"\.pre_norm_(mha|attn)\.1\.qkv_proj\.", ".attention.qkv_projection."),
    (r"\.pre_norm_(mha|attn)\.1\.out_proj\.", ".attention.out."),
    (r"\.pre_norm_ffn\.0\.", ".norm2."),
    (r"\.pre_norm_ffn\.1\.", ".mlp.fc1."),
    (r"\.conv_proj\.block\.", ".leave."),
)
_CVNETS = (
    *CVNETS_COMMON,
    (r"\.local_rep\.conv_3x3\.block\.", ".local."),
    (r"\.local_rep\.conv_1x1\.block\.conv\.", ".enter."),
    (r"\.pre_norm_ffn\.4\.", ".mlp.fc2."),
    (r"\.fusion\.block\.", ".fusion."),
    (r"^conv_1x1_exp\.block\.", "last."),
    (r"^classifier\.fc\.", "head."),
)


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as timm's."""
    return timm_names(tensors, _TIMM)


def timm_names(tensors: Tensors, pairs: tuple[tuple[str, str], ...]) -> Tensors:
    """Our names as timm's, of a family that differs in `pairs` (ours, theirs)."""
    bricks = (r"(^stem|\.conv\w+|^last)\.norm\.", r"\1.bn.")
    return pair(rename(pair(tensors, pairs), [bricks]), _ENDS)


def our_names(tensors: Tensors, pairs: tuple[tuple[str, str], ...]) -> Tensors:
    """Timm's names as ours, of a family that differs in `pairs` (ours, theirs)."""
    return pair(tensors, (*pairs, (".norm.", ".bn."), *_ENDS), back=True)


def _from_timm(tensors: Tensors) -> Tensors:
    return our_names(tensors, _TIMM)


def _from_hf(tensors: Tensors) -> Tensors:
    return _turned(stack_qkv(rename(tensors, _HF), ("query", "key", "value")))


def _from_cvnets(tensors: Tensors) -> Tensors:
    return _turned(rename(tensors, _CVNETS))


def _turned(tensors: Tensors) -> Tensors:
    """The first convolution for RGB instead of BGR."""
    stem: Tensor | None = tensors.get(_STEM)
    return tensors if stem is None else tensors | {_STEM: stem.flip(1)}


ORIGINS = (
    Origin(name="timm", marker=r"^stem\.bn\.", position_method="timm", translate=_from_timm, notes=(PIXELS,)),
    Origin(
        name="Hugging Face",
        marker=r"^(mobilevit\.)?conv_stem\.",
        position_method="hf",
        translate=_from_hf,
        notes=(TURNED, PIXELS),
    ),
    Origin(
        name="ml-cvnets",
        marker=r"^(encoder\.)?conv_1\.block\.",
        position_method="official",
        translate=_from_cvnets,
        notes=(TURNED, PIXELS),
    ),
)
