"""EfficientViT of Microsoft Research: Liu et al., "EfficientViT: Memory Efficient Vision Transformer ..." (CVPR 2023).

Sizes, starting values and the order of layers follow the authors' code (microsoft/Cream): batch norms and ReLU only,
local mixing and an MLP on each side of an attention. Deviations: any image size, the last windows filled up with zeros;
other attentions read the tokens of the same windows, behind a layer norm where they have none of their own.
Not the model of the same name by MIT.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import isqrt
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import flags_of
from vitexp.errors import ConfigError
from vitexp.layer.conv_norm import ConvNorm
from vitexp.layer.head import zero_linear
from vitexp.layer.norm_linear import NormLinear
from vitexp.layer.squeeze_excite import SqueezeExcite
from vitexp.model.classifier import Pyramid

RELU = partial(nn.ReLU, inplace=True)
STEM_SHARES = (8, 4, 2, 1)  # of the first stage's width, what each convolution of the stem divides it by


class EfficientViT(Pyramid):
    """Overlapping stem, three stages of sandwich blocks at half the map each, a normalised head on the mean.

    Args:
        image_size: pixels, one side or (height, width); sets the windows, images of other sizes are taken too.
        stem_stride: pixels a cell of the first stage's map: 1, 2, 4, 8 or the published 16.
        dims, depths, num_heads: of each stage.
        kernels: of the queries of each head, for an attention that takes them.
        window_size: cells a side, at most; a smaller map is one window.
        mlp_ratio: hidden width of each MLP, of its input's.
        merge_ratio: hidden width between two stages, of the earlier one's.
        attention: `attention(dim, num_heads, grid=window)`, called once a block.

    Raises:
        ConfigError: a stride that is not one of these, lists of unequal length, kernels given twice.
    """

    family: ClassVar[str] = "efficientvit"
    takes_any_size: ClassVar[Literal[True]] = True
    head_names: ClassVar[tuple[str, ...]] = ("head.linear.weight", "head.linear.bias")

    def __init__(
        self,
        *,
        image_size: int | Sequence[int],
        in_channels: int,
        stem_stride: int,
        dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        kernels: Sequence[int],
        window_size: int,
        mlp_ratio: float,
        merge_ratio: float,
        attention: Callable[..., nn.Module],
        num_classes: int,
    ) -> None:
        super().__init__()
        check_stages(dims, depths, num_heads)
        attention = with_kernels(attention, kernels)
        self.stem = overlap_stem(in_channels, dims[0], stem_stride)
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        height, width = (-(-side // stem_stride) for side in size)
        strides, stages = [], []
        for index, dim in enumerate(dims):
            if index:
                height, width = -(-height // 2), -(-width // 2)
            window = (min(window_size, height), min(window_size, width))
            downsample = Downsample(dims[index - 1], dim, mlp_ratio, merge_ratio) if index else nn.Identity()
            blocks = [Sandwich(dim, num_heads[index], window, attention, mlp_ratio) for _ in range(depths[index])]
            stages.append(Stage(downsample, blocks))
            strides.append(stem_stride << index)
        self.stages = nn.ModuleList(stages)
        self.head = NormLinear(dims[-1], num_classes)
        self.grid, self.strides, self.position_tables = (height, width), tuple(strides), {}
        self.num_classes = num_classes

    def embed(self, images: Tensor) -> Tensor:
        x: Tensor = self.stem(images)  # (B, D, H / stem_stride, W / stem_stride)
        return x

    def classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits

    def features(self, images: Tensor) -> list[Tensor]:
        x, maps = self.embed(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def reset_head(self, num_classes: int) -> None:
        assert isinstance(self.head, NormLinear)
        self.head.linear = zero_linear(self.head.linear, num_classes)
        self.num_classes = num_classes

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """Attention biases (H, r * r) of another window, resized bicubically as the authors' code does."""
        if not name.endswith(".bias_table") or tensor.ndim != 2:
            return None
        stage = self.stages[int(name.split(".")[1])]
        assert isinstance(stage, Stage)
        old = isqrt(tensor.shape[1])
        if old * old != tensor.shape[1] or len(tensor) != len(self.get_parameter(name)):
            return None
        table = tensor.float().unflatten(1, (old, old))[None]  # (1, H, r, r)
        table = F.interpolate(table, size=stage.window, mode="bicubic", align_corners=False)
        how = f"attention biases resized from {old}x{old} to {stage.window[0]}x{stage.window[1]} (bicubic)"
        return table[0].flatten(1).to(tensor.dtype), how


class Stage(nn.Module):
    """A change of width and size, then blocks: (B, C, H, W) -> (B, D, h, w)."""

    def __init__(self, downsample: nn.Module, blocks: Sequence["Sandwich"]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.window = blocks[0].window

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.downsample(x))
        return out


class Sandwich(nn.Module):
    """Local mixing and MLP, x + attention(x) within windows, local mixing and MLP: (B, D, H, W) -> (B, D, H, W).

    Every branch ends in a norm of weight zero, so a new block with the native attention is the identity.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int],
        attention: Callable[..., nn.Module],
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.window = window
        self.before = LocalMlp(dim, mlp_ratio, zero=True)
        self.norm = nn.Identity() if flags_of(attention).has_norm else nn.LayerNorm(dim)
        self.attention = attention(dim, num_heads, grid=window)
        self.after = LocalMlp(dim, mlp_ratio, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        x = x + self.attend(x)
        out: Tensor = self.after(x)
        return out

    def attend(self, x: Tensor) -> Tensor:
        """Attention within windows side by side; zeros that fill up the last ones are tokens like all others."""
        (height, width), (h, w) = x.shape[-2:], self.window
        x = F.pad(x, (0, -width % w, 0, -height % h))
        rows, columns = x.shape[2] // h, x.shape[3] // w
        x = x.permute(0, 2, 3, 1).unflatten(2, (columns, w)).unflatten(1, (rows, h)).transpose(2, 3)
        tokens = x.flatten(3, 4).flatten(0, 2)  # (B * rows * columns, h * w, D)
        x = self.attention(self.norm(tokens)).unflatten(1, self.window).unflatten(0, (-1, rows, columns))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)  # (B, D, rows * h, columns * w)
        return x[:, :, :height, :width]


class LocalMlp(nn.Module):
    """x + norm(depthwise 3x3), then x + MLP of 1x1 convolutions: (B, D, H, W) -> (B, D, H, W).

    The MLP's branch starts as zero, and with `zero` the depthwise one too.
    """

    def __init__(self, dim: int, mlp_ratio: float, *, zero: bool) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.local = ConvNorm(dim, dim, 3, groups=dim, zero=zero)
        self.expand = ConvNorm(dim, hidden, activation=RELU)
        self.reduce = ConvNorm(hidden, dim, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.local(x)
        return x + self.reduce(self.expand(x))


class Downsample(nn.Module):
    """Between two stages: (B, C, H, W) -> (B, D, H / 2, W / 2), an inverted residual between two pairs of local + MLP.

    The inverted residual has no shortcut: wide 1x1, depthwise 3x3 of stride 2, squeeze-and-excitation to C, narrow 1x1.
    """

    def __init__(self, in_dim: int, dim: int, mlp_ratio: float, merge_ratio: float) -> None:
        super().__init__()
        hidden = int(in_dim * merge_ratio)
        self.before = LocalMlp(in_dim, mlp_ratio, zero=False)
        self.merge = nn.Sequential()
        self.merge.add_module("expand", ConvNorm(in_dim, hidden, activation=RELU))
        self.merge.add_module("local", ConvNorm(hidden, hidden, 3, stride=2, groups=hidden, activation=RELU))
        self.merge.add_module("squeeze", SqueezeExcite(hidden, in_dim))
        self.merge.add_module("reduce", ConvNorm(hidden, dim))
        self.after = LocalMlp(dim, mlp_ratio, zero=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.merge(self.before(x)))
        return out


def overlap_stem(in_channels: int, dim: int, stride: int) -> nn.Sequential:
    """Convolutions 3x3 that double the width; the last of them halve the map, as many as `stride` asks for."""
    allowed = [1 << halvings for halvings in range(len(STEM_SHARES) + 1)]
    if stride not in allowed:
        shown = ", ".join(map(str, allowed))
        raise ConfigError(
            f"model.stem_stride={stride} cannot be reached by the {len(STEM_SHARES)} convolutions of an EfficientViT's "
            f"stem; it is one of {shown}; use model.stem_stride={max(s for s in allowed if s <= max(stride, 1))}"
        )
    halvings, layers = allowed.index(stride), nn.Sequential()
    for index, share in enumerate(STEM_SHARES):
        step = 2 if index >= len(STEM_SHARES) - halvings else 1
        activation = RELU if share > 1 else None
        layers.append(ConvNorm(in_channels, dim // share, 3, stride=step, activation=activation))
        in_channels = dim // share
    return layers


def with_kernels(attention: Callable[..., nn.Module], kernels: Sequence[int]) -> Callable[..., nn.Module]:
    """The attention with the model's kernels if it takes any; conf/attention asks the model for them itself."""
    if not flags_of(attention).takes_kernels:
        return attention
    own = attention.keywords.get("kernels") if isinstance(attention, partial) else None
    if own is None:
        return partial(attention, kernels=kernels)
    if list(own) != list(kernels):
        raise ConfigError(
            f"model.attention.kernels={list(own)} and model.kernels={list(kernels)} disagree; an EfficientViT has one "
            "set for its attention; use model.kernels alone"
        )
    return attention


def check_stages(*lists: Sequence[int]) -> None:
    """Raise ConfigError unless dims, depths and num_heads speak of the same stages."""
    if len({len(values) for values in lists}) != 1 or not lists[0] or min(map(min, lists)) < 1:
        shown = ", ".join(f"{name}={list(v)}" for name, v in zip(("dims", "depths", "num_heads"), lists, strict=True))
        raise ConfigError(
            f"{shown} do not describe the same stages; each needs one number above 0 for each stage; "
            "use three numbers each, as conf/model/efficientvit_m0.yaml does"
        )
