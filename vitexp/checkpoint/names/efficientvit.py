"""Foreign names of an EfficientViT's tensors: the authors' (microsoft/Cream) and timm's.

The authors number the layers of a stage through, so that the change of size between two stages takes the first three
numbers; very old files of theirs hold 1x1 convolutions as matrices.
"""

import re

from vitexp.checkpoint.origin import Origin, Tensors, pair, rename

# Ours -> timm's, in this order; the longer names first.
_PAIRS = (
    *((f"stem.{index}.", f"patch_embed.conv{index + 1}.") for index in range(4)),
    ("downsample.before.local.", "downsample.res1.0.m."),
    ("downsample.before.expand.", "downsample.res1.1.m.pw1."),
    ("downsample.before.reduce.", "downsample.res1.1.m.pw2."),
    ("downsample.merge.expand.", "downsample.patchmerge.conv1."),
    ("downsample.merge.local.", "downsample.patchmerge.conv2."),
    ("downsample.merge.squeeze.reduce.", "downsample.patchmerge.se.fc1."),
    ("downsample.merge.squeeze.expand.", "downsample.patchmerge.se.fc2."),
    ("downsample.merge.reduce.", "downsample.patchmerge.conv3."),
    ("downsample.after.local.", "downsample.res2.0.m."),
    ("downsample.after.expand.", "downsample.res2.1.m.pw1."),
    ("downsample.after.reduce.", "downsample.res2.1.m.pw2."),
    (".before.local.", ".dw0.m."),
    (".before.expand.", ".ffn0.m.pw1."),
    (".before.reduce.", ".ffn0.m.pw2."),
    (".after.local.", ".dw1.m."),
    (".after.expand.", ".ffn1.m.pw1."),
    (".after.reduce.", ".ffn1.m.pw2."),
    (".attention.qkv.", ".mixer.m.attn.qkvs."),
    (".attention.query.", ".mixer.m.attn.dws."),
    (".attention.out.", ".mixer.m.attn.proj.1."),
    (".attention.bias_table", ".mixer.m.attn.attention_biases"),
    (".norm.", ".bn."),
)
_OFFICIAL = (
    *((rf"^patch_embed\.{2 * index}\.", f"patch_embed.conv{index + 1}.") for index in range(4)),
    (r"\.c\.", ".conv."),
    (r"^head\.l\.", "head.linear."),
    (r"^blocks1\.", "stages.0.blocks."),
    (r"^blocks([23])\.0\.", r"blocks\1.downsample.res1."),
    (r"^blocks([23])\.1\.", r"blocks\1.downsample.patchmerge."),
    (r"^blocks([23])\.2\.", r"blocks\1.downsample.res2."),
)
_LATER_BLOCK = re.compile(r"^blocks([23])\.(\d+)\.")


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as timm's."""
    return pair(tensors, _PAIRS)


def _from_timm(tensors: Tensors) -> Tensors:
    return pair(tensors, _PAIRS, back=True)


def _from_official(tensors: Tensors) -> Tensors:
    """Our names, by way of timm's; the index of biases, which the authors store, is made anew from the window."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(".attention_bias_idxs")}
    renamed: Tensors = {}
    for name, tensor in rename(kept, _OFFICIAL).items():
        name = _LATER_BLOCK.sub(lambda found: f"blocks{found[1]}.blocks.{int(found[2]) - 3}.", name)
        name = re.sub(r"^blocks([23])\.", lambda found: f"stages.{int(found[1]) - 1}.", name)
        is_matrix = tensor.ndim == 2 and re.search(r"\.conv\.weight$|\.se\.fc\d\.weight$", name)
        renamed[name] = tensor[:, :, None, None] if is_matrix else tensor
    return _from_timm(renamed)


ORIGINS = (
    Origin(
        name="timm",
        marker=r"^patch_embed\.conv1\.",
        position_method="timm",
        translate=_from_timm,
    ),
    Origin(
        name="the authors",
        marker=r"^patch_embed\.0\.c\.",
        position_method="official",
        translate=_from_official,
        dropped=r"^head_dist\.",
    ),
)
