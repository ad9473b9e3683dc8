"""MobileViT: Mehta and Rastegari, "MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer".

ICLR 2022, section 3.1 and appendix A. Images are RGB in 0..1 without mean and standard deviation (the published weights
were trained on BGR; loading turns them). Starting values are those of the authors' code: Kaiming-normal convolutions
by fan-out, N(0, 0.02) truncated for linear layers. LayerNorm is over channels, as in the authors' releases 0.1 and
0.2; release 0.3 takes the wrong axis where a set has as many tokens as channels.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.layer.conv_norm import ConvNorm
from vitexp.layer.pixel_sets import join_sets, split_sets
from vitexp.layer.point_conv import PointConv
from vitexp.layer.silu import Silu
from vitexp.model.mobile import SIDE, MobilePyramid, SetLayer, even


class MobileBlock(nn.Module):
    """Local 3x3, a Transformer over sets of pixels, and both together: (B, C, H, W) -> (B, C, H, W).

    Odd sides are resized bilinearly to even ones for the Transformer, and back after it.
    """

    def __init__(self, channels: int, dim: int, depth: int, *, layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.local = ConvNorm(channels, channels, 3, activation=Silu)
        self.enter = PointConv(channels, dim, bias=False)
        self.layers = nn.Sequential(*(layer(dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.leave = ConvNorm(dim, channels, activation=Silu)
        self.fusion = ConvNorm(2 * channels, channels, 3, activation=Silu)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.enter(self.local(x))
        size, whole = seen.shape[-2:], even(seen.shape[-2:])
        if size != whole:
            seen = F.interpolate(seen, size=whole, mode="bilinear", align_corners=False)
        tokens = self.norm(self.layers(split_sets(seen, SIDE)))  # (B, P, N, D)
        seen = join_sets(tokens, SIDE, whole)
        if size != whole:
            seen = F.interpolate(seen, size=size, mode="bilinear", align_corners=False)
        out: Tensor = self.fusion(torch.cat([x, self.leave(seen)], dim=1))
        return out


@final
class MobileViT(MobilePyramid):
    """Convolutions with three small Transformers inside, a 1x1 convolution, mean pooling, a linear head.

    (B, C, H, W) -> (B, K). Arguments as in `MobilePyramid`; `channels` ends with those of the last 1x1 convolution.

    Args:
        dropout: in the Transformers, after attention and after the MLP.
        head_dropout: before the head.
    """

    family: ClassVar[str] = "mobilevit"

    def __init__(
        self,
        *,
        image_size: int | Sequence[int],
        in_channels: int,
        num_classes: int,
        stem_stride: int,
        channels: Sequence[int],
        residuals: Mapping[str, Any],
        blocks: Mapping[str, Any],
        num_heads: int,
        mlp_ratio: float,
        attention: Callable[..., nn.Module],
        dropout: float = 0.0,
        head_dropout: float = 0.0,
    ) -> None:
        def make_layer(dim: int) -> nn.Module:
            return SetLayer(
                dim, num_heads, norm=nn.LayerNorm, attention=attention, mlp_ratio=mlp_ratio, dropout=dropout
            )

        super().__init__(
            image_size=image_size,
            in_channels=in_channels,
            num_classes=num_classes,
            stem_stride=stem_stride,
            channels=channels,
            residuals=residuals,
            blocks=blocks,
            attention=attention,
            make_block=partial(MobileBlock, layer=make_layer),
        )
        self.last = ConvNorm(channels[-2], channels[-1], activation=Silu)
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(channels[-1], num_classes)
        self.apply(start)

    def classify(self, x: Tensor) -> Tensor:
        pooled = self.last(x).mean(dim=(-2, -1))  # (B, C)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def start(module: nn.Module) -> None:
    """The starting values of the authors' code, in place."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
