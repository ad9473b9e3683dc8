"""The parts of an image that tokens read: rollout (Abnar and Zuidema, 2020) and the maps of one block's heads.

Rollout: heads averaged, the identity added for the residual path, rows divided by their sum, blocks multiplied from
the first to the last. Read from the class token where there is one, else averaged over all tokens. Where a model mixes
its maps (re-attention), the softmax map is read: only a distribution can be rolled out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.maps import attentions, grid_of, look
from vitexp.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Overlays:
    """`pixels` (n, C, S, S) in 0..1, `rollout` (n, h, w), `heads` (n, H, h, w) of block number `block` (from 0)."""

    pixels: Tensor
    rollout: Tensor
    heads: Tensor
    block: int


@final
class Rollout(Analysis):
    """Rollout and per-head maps over each image.

    Args:
        block: whose heads are shown; -1 is the last.
    """

    name: ClassVar[str] = "rollout"
    compares: ClassVar[bool] = False

    def __init__(self, *, block: int) -> None:
        self.block = block

    def measure(self, subject: Subject) -> Overlays:
        """Roll out each image."""
        depth = len(attentions(subject.model))
        if not -depth <= self.block < depth:
            raise ConfigError(
                f"analysis.block={self.block} is no block of this model; it has {depth}, from 0 (or -1, the last);"
                " use analysis.block=-1"
            )
        shown, rolled, heads = self.block % depth, [], []
        for image in subject.images.split(1):
            seen: dict[int, Tensor] = {}

            def on_maps(block: int, maps: dict[str, Tensor], seen: dict[int, Tensor] = seen) -> None:
                weights = next(iter(maps.values())).float()
                require_grid(subject.model, weights)
                if block == shown:
                    seen[-1] = weights[0]
                seen[block] = weights.mean(1)[0]  # (N, N)

            look(subject.model, image, on_maps)
            heads.append(read(subject.model, seen.pop(-1)))
            rolled.append(read(subject.model, roll_out(list(seen.values()))[None])[0])
        pixels = subject.images.cpu() * torch.tensor(subject.std)[:, None, None]
        pixels = (pixels + torch.tensor(subject.mean)[:, None, None]).clamp(0, 1)
        return Overlays(pixels=pixels, rollout=torch.stack(rolled), heads=torch.stack(heads), block=shown)

    def summary(self, measured: Overlays) -> dict[str, float]:
        """Share of all cells that hold half of the attention: 0.5 is even, less is focused. Mean over images."""
        return {
            "rollout/half_share": float(half_share(measured.rollout.flatten(1)).mean()),
            "heads/half_share": float(half_share(measured.heads.flatten(2)).mean()),
        }

    def rows(self, measured: Overlays) -> list[Row]:
        """One for each cell of each overlay."""
        rows = []
        for image, (rolled, heads) in enumerate(zip(measured.rollout, measured.heads, strict=True)):
            for name, overlay in [("rollout", rolled), *((f"head {h}", one) for h, one in enumerate(heads))]:
                for y, line in enumerate(overlay.tolist()):
                    rows += [
                        {"image": image, "map": name, "row": y, "column": x, "weight": w} for x, w in enumerate(line)
                    ]
        return rows

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """The first measurement: a row for each image."""
        from vitexp.report.plot_overlays import overlays

        one: Overlays = next(iter(measured.values()))
        overlays(one.pixels.numpy(), one.rollout.numpy(), one.heads.numpy(), out, block=one.block + 1, title=title)


def roll_out(maps: list[Tensor]) -> Tensor:
    """Maps (N, N) of each block, heads averaged, to the rollout (N, N): rows say what each final token is made of."""
    rolled = torch.eye(len(maps[0]), dtype=maps[0].dtype, device=maps[0].device)
    for weights in maps:
        mixed = weights + torch.eye(len(weights), dtype=weights.dtype, device=weights.device)
        rolled = (mixed / mixed.sum(-1, keepdim=True)) @ rolled
    return rolled


def read(model: nn.Module, weights: Tensor) -> Tensor:
    """(H, N, N) to (H, h, w): what the class token reads of the cells, or the mean token where there is none."""
    grid, prefix = grid_of(model)
    assert grid is not None, "a model without a grid is refused before"
    row = weights[:, 0] if prefix else weights.mean(1)  # (H, N)
    return row[:, prefix:].unflatten(1, grid).cpu()


def half_share(weights: Tensor) -> Tensor:
    """(..., cells) to (...): the smallest share of the cells that together hold half of the weight."""
    total = weights.sort(dim=-1, descending=True).values.cumsum(-1)
    needed = (total < total[..., -1:] / 2).sum(-1) + 1
    return needed / weights.shape[-1]


def require_grid(model: nn.Module, weights: Tensor) -> None:
    """Raise ConfigError unless the map is over all tokens of one grid."""
    grid, prefix = grid_of(model)
    if grid is None or weights.shape[-2:] != (prefix + grid[0] * grid[1],) * 2:
        raise ConfigError(
            f"analysis=rollout multiplies maps over the whole image and {type(model).__name__} has maps of"
            f" {weights.shape[0]} x {weights.shape[-2]} queries, {weights.shape[-1]} keys; it needs every block to see"
            " all tokens; use a ViT or DeepViT, or analysis=distance, which takes windows"
        )
