"""MobileViT v2: Mehta and Rastegari, "Separable Self-attention for Mobile Vision Transformers" (2022).

Section 3.3 and appendix A; the second stage has two inverted residuals, as in the authors' code and parameter counts
(their Table 5 draws three). Images are RGB in 0..1 without mean and standard deviation. Starting values are those of
the authors' code, where every linear map but the head is a 1x1 convolution: Kaiming-normal by fan-out.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, final

from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.layer.conv_norm import ConvNorm
from vitexp.layer.image_norm import ImageNorm
from vitexp.layer.pixel_sets import join_sets, split_sets
from vitexp.layer.point_conv import PointConv
from vitexp.layer.silu import Silu
from vitexp.model.mobile import SIDE, MobilePyramid, SetLayer, even


class MobileBlockV2(nn.Module):
    """Local depthwise 3x3, a Transformer over sets of pixels, 1x1 back, nothing added: (B, C, H, W) -> (B, C, H, W).

    Odd sides are resized bilinearly to even ones, corners onto corners, and stay so.
    """

    def __init__(self, channels: int, dim: int, depth: int, *, layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.local = ConvNorm(channels, channels, 3, groups=channels, activation=Silu)
        self.enter = PointConv(channels, dim, bias=False)
        self.layers = nn.Sequential(*(layer(dim) for _ in range(depth)))
        self.norm = ImageNorm(dim)
        self.leave = ConvNorm(dim, channels)

    def forward(self, x: Tensor) -> Tensor:
        whole = even(x.shape[-2:])
        if x.shape[-2:] != whole:
            x = F.interpolate(x, size=whole, mode="bilinear", align_corners=True)
        x = self.enter(self.local(x))
        tokens = self.norm(self.layers(split_sets(x, SIDE)))  # (B, P, N, D)
        out: Tensor = self.leave(join_sets(tokens, SIDE, whole))
        return out


@final
class MobileViTV2(MobilePyramid):
    """Convolutions with three Transformers of linear cost inside, mean pooling, a linear head.

    (B, C, H, W) -> (B, K). Arguments as in `MobilePyramid`.

    Args:
        num_heads: of an attention that has heads; separable attention has none.
        dropout: in the Transformers, after attention and after the MLP.
    """

    family: ClassVar[str] = "mobilevitv2"

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
    ) -> None:
        def make_layer(dim: int) -> nn.Module:
            return SetLayer(dim, num_heads, norm=ImageNorm, attention=attention, mlp_ratio=mlp_ratio, dropout=dropout)

        super().__init__(
            image_size=image_size,
            in_channels=in_channels,
            num_classes=num_classes,
            stem_stride=stem_stride,
            channels=channels,
            residuals=residuals,
            blocks=blocks,
            attention=attention,
            make_block=partial(MobileBlockV2, layer=make_layer),
        )
        self.head = nn.Linear(channels[-1], num_classes)
        self.apply(start)
        nn.init.trunc_normal_(self.head.weight, std=0.02)

    def classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.mean(dim=(-2, -1)))
        return logits


def start(module: nn.Module) -> None:
    """The starting values of the authors' code, in place, the head's weights aside."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
