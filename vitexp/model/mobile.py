"""The base of MobileViT and MobileViT v2: inverted residuals in five stages, the last three with a Transformer.

The small-image rule: three convolutions halve the image before the first Transformer gets its map; where `stem_stride`
asks for fewer halvings than three, the first of them run at stride 1.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import flags_of
from vitexp.errors import ConfigError
from vitexp.layer.conv_norm import ConvNorm
from vitexp.layer.in_parts import in_parts
from vitexp.layer.inverted_residual import InvertedResidual
from vitexp.layer.silu import Silu
from vitexp.model.classifier import Pyramid

SIDE = 2  # pixels a side of the patches, in every published MobileViT
_UNMIXED = 2  # stages without a Transformer
_EARLY = 3  # convolutions that may halve the image before the first Transformer


class SetLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), attention within each set: (B, P, N, D) -> (B, P, N, D)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        norm: Callable[[int], nn.Module],
        attention: Callable[..., nn.Module],
        mlp_ratio: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = norm(dim)
        self.attention = attention(dim, num_heads)
        self.norm2 = norm(dim)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(dim, hidden))
        self.mlp.add_module("activation", Silu())
        self.mlp.add_module("fc2", nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        sets = self.norm1(x).flatten(0, 1)  # (B*P, N, D)
        x = x + self.dropout(self.attention(sets).view_as(x))
        return x + self.dropout(self.mlp(self.norm2(x)))


class MobilePyramid(Pyramid):
    """Stem, two stages of inverted residuals, three of an inverted residual and a block with a Transformer, pooled.

    Args:
        image_size: pixels, one side or (height, width), for `grid` alone: images of any size go through.
        stem_stride: pixels a cell of the map that the first Transformer gets: 8 as published, or 4, 2, 1.
        channels: of the stem and of the five stages; more of them are the final class's.
        residuals: `expansion`, and in `counts` how many inverted residuals the first two stages have.
        blocks: `dims` and `depths` of the three Transformers.
        make_block: `make_block(channels, dim, depth)`, maps to maps of the same size, or of one rounded up to even.

    Raises:
        ConfigError: a stem_stride out of reach, an attention that needs a grid.
    """

    takes_any_size: ClassVar[Literal[True]] = True

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
        attention: Callable[..., nn.Module],
        make_block: Callable[[int, int, int], nn.Module],
    ) -> None:
        super().__init__()
        check_attention(attention)
        early = early_strides(stem_stride)
        strides = (1, *early[1:], 2, 2)  # of the first inverted residual of each stage
        self.num_classes = num_classes
        self.position_tables = {}
        self.stem = ConvNorm(in_channels, channels[0], 3, stride=early[0], activation=Silu)
        self.strides = _products(early[0], strides)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.grid = (-(-height // self.strides[-1]), -(-width // self.strides[-1]))
        self.stages = nn.ModuleList()
        self._widest = int(residuals["expansion"] * max(channels[:_UNMIXED]))  # channels at the first stride
        for index, stride in enumerate(strides):
            before, after = channels[index], channels[index + 1]
            count = residuals["counts"][index] if index < len(residuals["counts"]) else 1
            units: list[nn.Module] = [
                InvertedResidual(
                    after if unit else before, after, stride=1 if unit else stride, expansion=residuals["expansion"]
                )
                for unit in range(count)
            ]
            place = index - (len(strides) - len(blocks["dims"]))
            if place >= 0:
                units.append(make_block(after, blocks["dims"][place], blocks["depths"][place]))
            self.stages.append(nn.Sequential(*units))

    def embed(self, images: Tensor) -> Tensor:
        out: Tensor = self.stem(images)
        return out

    def forward(self, images: Tensor) -> Tensor:
        if self.training:  # batch norms read the whole batch
            x = self._early(images)
        else:
            x = in_parts(self._early, images, bytes_per_image=self._early_bytes(images))
        for stage in self.stages[_UNMIXED:]:
            x = stage(x)
        return self.classify(x)

    def _early(self, images: Tensor) -> Tensor:
        """The stages without a Transformer: most of the pixels and little of the arithmetic."""
        x = self.embed(images)
        for stage in self.stages[:_UNMIXED]:
            x = stage(x)
        return x

    def _early_bytes(self, images: Tensor) -> int:
        """Size of an image's largest map, which is inside the first inverted residuals."""
        height, width = (side // self.strides[0] for side in images.shape[-2:])
        return max(1, self._widest * height * width * images.element_size())

    def features(self, images: Tensor) -> list[Tensor]:
        """The five stages' maps; one that left its block at an even size goes back to its stride's, as detectors need.

        Published strides 2, 4, 8, 16, 32 (`strides`); a side that they do not divide is rounded up.
        """
        maps, x = [], self.embed(images)
        for stage, stride in zip(self.stages, self.strides, strict=True):
            x = stage(x)
            size = [-(-side // stride) for side in images.shape[-2:]]
            kept = x if list(x.shape[-2:]) == size else F.interpolate(x, size=size, mode="bilinear")
            maps.append(kept)
        return maps

    @abstractmethod
    def classify(self, x: Tensor) -> Tensor:
        """The last map (B, C, h, w) to logits (B, K)."""


def even(size: Sequence[int]) -> tuple[int, int]:
    """(H, W) rounded up to whole patches."""
    return -(-size[0] // SIDE) * SIDE, -(-size[1] // SIDE) * SIDE


def early_strides(stem_stride: int) -> tuple[int, ...]:
    """Strides of stem, second and third stage: the last log2(stem_stride) of them halve."""
    halvings = stem_stride.bit_length() - 1
    if stem_stride < 1 or stem_stride & (stem_stride - 1) or halvings > _EARLY:
        raise ConfigError(
            f"model.stem_stride={stem_stride} is out of reach: a MobileViT halves the image up to three times before "
            "its first Transformer; use model.stem_stride=1, 2, 4 or 8"
        )
    return tuple(2 if index >= _EARLY - halvings else 1 for index in range(_EARLY))


def check_attention(attention: Callable[..., nn.Module]) -> None:
    """Raise ConfigError for an attention that needs the places of its tokens."""
    variant = flags_of(attention)
    if variant.needs_grid:
        raise ConfigError(
            f"attention={variant.name} works on the cells of a grid, and a MobileViT attends among every "
            "second pixel of maps of any size; it takes an attention without a grid; use attention=softmax or separable"
        )


def _products(first: int, strides: Sequence[int]) -> tuple[int, ...]:
    products = [first]
    for stride in strides:
        products.append(products[-1] * stride)
    return tuple(products[1:])
