"""Foreign names of a MobileViT v2's tensors: timm, Hugging Face, and the authors' ml-cvnets; RGB in 0..1 in all three.

All of them write the Transformers' linear maps as 1x1 convolutions, (out, in, 1, 1); here they are (out, in).
"""

import re

from vitexp.checkpoint.names.mobilevit import CVNETS_COMMON, HF_COMMON, PIXELS, our_names, timm_names
from vitexp.checkpoint.origin import Origin, Tensors, rename

_LINEAR = re.compile(r"\.layers\.\d+\.(attention|mlp)\..*\.weight$")
_TIMM = (
    (".expand.", ".conv1_1x1."),
    (".depthwise.", ".conv2_kxk."),
    (".project.", ".conv3_1x1."),
    (".local.", ".conv_kxk."),
    (".enter.", ".conv_1x1."),
    (".layers.", ".transformer."),
    (".attention.qkv_projection.", ".attn.qkv_proj."),
    (".attention.out.", ".attn.out_proj."),
    (".leave.", ".conv_proj."),
)
_HF = (
    *HF_COMMON,
    (r"\.attention\.qkv_proj\.conv\.", ".attention.qkv_projection."),
    (r"\.attention\.out_proj\.conv\.", ".attention.out."),
    (r"\.ffn\.conv(\d)\.conv\.", r".mlp.fc\1."),
)
_CVNETS = (
    *CVNETS_COMMON,
    (r"\.local_rep\.0\.block\.", ".local."),
    (r"\.local_rep\.1\.block\.conv\.", ".enter."),
    (r"\.pre_norm_ffn\.3\.", ".mlp.fc2."),
    (r"(\.attention\.qkv_projection|\.attention\.out|\.mlp\.fc\d)\.block\.conv\.", r"\1."),
    (r"^classifier\.1\.", "head."),
)


def to_timm(tensors: Tensors) -> Tensors:
    """Our names and shapes as timm's."""
    convolutions = {n: t[:, :, None, None] if _LINEAR.search(n) else t for n, t in tensors.items()}
    return timm_names(convolutions, _TIMM)


def _from_timm(tensors: Tensors) -> Tensors:
    return _linear(our_names(tensors, _TIMM))


def _from_hf(tensors: Tensors) -> Tensors:
    return _linear(rename(tensors, _HF))


def _from_cvnets(tensors: Tensors) -> Tensors:
    return _linear(rename(tensors, _CVNETS))


def _linear(tensors: Tensors) -> Tensors:
    """The 1x1 convolutions of the Transformers as linear maps; other shapes stay, to be reported as they are."""
    return {n: t.flatten(1) if _LINEAR.search(n) and t.shape[2:] == (1, 1) else t for n, t in tensors.items()}


ORIGINS = (
    Origin(name="timm", marker=r"^stem\.bn\.", position_method="timm", translate=_from_timm, notes=(PIXELS,)),
    Origin(
        name="Hugging Face",
        marker=r"^(mobilevitv2\.)?conv_stem\.",
        position_method="hf",
        translate=_from_hf,
        notes=(PIXELS,),
    ),
    Origin(
        name="ml-cvnets",
        marker=r"^(encoder\.)?conv_1\.block\.",
        position_method="official",
        translate=_from_cvnets,
        notes=(PIXELS,),
    ),
)
