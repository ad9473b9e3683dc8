"""Swin Transformer V2: Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution" (CVPR 2022).

Deviations from the authors' code, all without effect on square images that the windows divide: padded cells are hidden
(vitexp/layer/window.py), each axis clamps its own window, images of any size pass. Merging opens a stage here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.errors import ConfigError
from vitexp.layer.relative_bias import RelativeBias, resize_table
from vitexp.layer.window import Windows, clamp_window, up
from vitexp.model.classifier import Pyramid
from vitexp.model.encoder import drop_path_rates
from vitexp.model.swinv2_block import PatchMerging, SwinBlock, start_conv, start_linear


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """The cutting of maps into windows.

    Attributes:
        size: side of a window in cells, where the map has as many.
        pretrained_size: side of the windows that the weights were trained with, one number or one a stage as they were
            after clamping (12 at 192 pixels is [12, 12, 12, 6]); None for `size`. Only bias nets read it.
        clamp: axis or both: vitexp.layer.window.clamp_window.
        padding: masked, hf or timm: vitexp.layer.window.
    """

    size: int
    pretrained_size: int | Sequence[int] | None
    clamp: str
    padding: str

    def windows(self, grid: tuple[int, int], *, shifted: bool) -> Windows:
        """The windows of a block whose map is `grid`."""
        size, shift = clamp_window(grid, self.size, clamp=self.clamp)
        return Windows(grid=grid, window=size, shift=shift if shifted else (0, 0), padding=self.padding)

    def pretrained(self, stage: int, grid: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the window that a stage with maps of `grid` was trained with."""
        if self.pretrained_size is None:
            return clamp_window(grid, self.size, clamp=self.clamp)[0]
        if isinstance(self.pretrained_size, int):
            return (self.pretrained_size, self.pretrained_size)
        return (self.pretrained_size[stage], self.pretrained_size[stage])


class Stage(nn.Module):
    """Patch merging but in the first stage, then blocks, every second one with shifted windows.

    (B, h, w, D) -> (B, h / 2, w / 2, 2 D), or the same shape where nothing is merged.
    """

    def __init__(self, merge: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.merge = merge
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.merge(x)
        for block in self.blocks:
            x = block(x)
        return x


class SwinV2(Pyramid):
    """Patches, a norm, stages of window attention whose maps halve and widths double, a norm, the mean cell, a head.

    Args:
        image_size: pixels, one side or (height, width); sets the windows. Images of another size pass too.
        stem: `stem(in_channels=..., dim=...)` -> module from images to a map (B, D, h, w), with `patch_size`.
        dim: width of the first stage.
        depths, num_heads: blocks and heads of each stage.
        window: sides of the windows.
        block: `block(dim, num_heads, windows=..., ...)`, a `SwinBlock` but for what each block has of its own.
        attention: `attention(dim, num_heads, grid=...)`, called once a block; must take masks and biases.
        extra_norm_every: in each stage, blocks 6, 12, ... for 6 end with one more norm; 0 is off (paper, section 3.1:
            6 for the huge and the giant; how stages count is not said, this is what mmpretrain does).
        drop_path_rate: of the last block, growing linearly from 0.

    Raises:
        ConfigError: lists of different lengths, an attention that cannot work here, unknown words.
    """

    family: ClassVar[str] = "swinv2"
    takes_any_size: ClassVar[Literal[True]] = True

    def __init__(
        self,
        *,
        image_size: int | Sequence[int],
        in_channels: int,
        stem: Callable[..., Any],
        dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window: WindowPlan,
        block: Callable[..., SwinBlock],
        attention: Callable[..., nn.Module],
        extra_norm_every: int,
        num_classes: int,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_stages(depths, num_heads, window)
        self.stem = stem(in_channels=in_channels, dim=dim)
        self.stem_norm = nn.LayerNorm(dim)
        patch = self.stem.patch_size
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.grid = (up(height, patch) // patch, up(width, patch) // patch)
        self.strides = tuple(patch * 2**stage for stage in range(len(depths)))
        self.position_tables = {}
        self.num_classes = num_classes
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.stages = nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            merge = PatchMerging(dim) if stage else nn.Identity()
            if stage:
                dim, self.grid = 2 * dim, (up(self.grid[0], 2) // 2, up(self.grid[1], 2) // 2)
            build = partial(block, dim, heads, pretrained=window.pretrained(stage, self.grid), attention=attention)
            blocks = [
                build(
                    windows=window.windows(self.grid, shifted=index % 2 == 1),
                    extra_norm=extra_norm_every > 0 and (index + 1) % extra_norm_every == 0,
                    drop_path_rate=next(rates),
                )
                for index in range(depth)
            ]
            self.stages.append(Stage(merge, blocks))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        start_linear(self.head)
        self.stem.apply(start_conv)

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), zero-padded at the bottom right to whole patches, to a normed map (B, h, w, D)."""
        height, width = images.shape[-2:]
        patch = self.stem.patch_size
        if height % patch or width % patch:
            images = F.pad(images, (0, up(width, patch) - width, 0, up(height, patch) - height))
        x = self.stem(images).permute(0, 2, 3, 1)  # (B, h, w, D)
        normed: Tensor = self.stem_norm(x)
        return normed

    def classify(self, x: Tensor) -> Tensor:
        """The last map (B, h, w, D) to logits (B, K)."""
        logits: Tensor = self.head(self.norm(x).mean(dim=(1, 2)))
        return logits

    def features(self, images: Tensor) -> list[Tensor]:
        """Each stage's map (B, D_i, H / strides[i], W / strides[i]) without a norm, sides rounded up."""
        x, maps = self.embed(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.permute(0, 3, 1, 2))
        return maps

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """A parameterised bias of another window size, resized; bias nets fit every window as they are."""
        module = self.get_submodule(name.rpartition(".")[0])
        if not isinstance(module, RelativeBias) or not name.endswith(".table"):
            return None
        resized = resize_table(tensor, module.window)
        how = f"bias table of {len(tensor)} offsets resized to a window of {module.window[0]}x{module.window[1]} cells"
        return None if resized is None else (resized, how)


def check_stages(depths: Sequence[int], num_heads: Sequence[int], window: WindowPlan) -> None:
    """Raise ConfigError unless every stage has its number of blocks, of heads and, if given, trained window."""
    lists = {"depths": depths, "num_heads": num_heads}
    if isinstance(window.pretrained_size, Sequence):
        lists["window.pretrained_size"] = window.pretrained_size
    for name, values in lists.items():
        if len(values) != len(depths):
            raise ConfigError(
                f"model.{name}={list(values)} is for {len(values)} stages and model.depths={list(depths)} for "
                f"{len(depths)}; give one number a stage"
            )
