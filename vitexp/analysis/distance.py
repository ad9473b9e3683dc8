"""Mean attention distance: how far, in pixels, each head looks (Dosovitskiy et al. 2021, section 4.5, Fig. 7 right).

For a query at cell i: the distances from i to the cells j, weighted by its attention; then the mean over queries and
images. Tokens without a cell (class token, memory) are left out, so a row may sum to less than 1: `renormalise`
divides by what is left. Uniform attention over 14 x 14 patches of 16 pixels gives 116.4922, identity 0. Where a model
mixes its maps (re-attention), the softmax map is read: only a distribution has a mean.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.maps import grid_of, look
from vitexp.errors import ConfigError
from vitexp.model.mobilevit import MobileBlock

Heads = dict[int, Tensor]  # block -> (H,)


@final
class Distance(Analysis):
    """Mean attention distance in pixels by block and head."""

    name: ClassVar[str] = "distance"

    def __init__(self, *, renormalise: bool) -> None:
        self.renormalise = renormalise

    def measure(self, subject: Subject) -> Heads:
        """Block -> mean distance of each head."""
        totals: Heads = {}
        for image in subject.images.split(1):
            shape = (image.shape[-2], image.shape[-1])

            def on_maps(block: int, maps: dict[str, Tensor], shape: tuple[int, int] = shape) -> None:
                weights = next(iter(maps.values())).float()  # (W, H, N, K)
                cells = Cells(subject.model, weights, shape)
                heads = cells.mean_distance(weights, renormalise=self.renormalise)
                totals[block] = totals.get(block, torch.zeros(len(heads))) + heads.cpu()

            look(subject.model, image, on_maps)
        return {block: total / len(subject.images) for block, total in totals.items()}

    def summary(self, measured: Heads) -> dict[str, float]:
        """Mean over heads: of the first block, of the last, of all; and the widest spread inside one block."""
        means = [float(heads.mean()) for heads in measured.values()]
        spread = max(float(heads.max() - heads.min()) for heads in measured.values())
        return {
            "first_pixels": means[0],
            "last_pixels": means[-1],
            "mean_pixels": sum(means) / len(means),
            "widest_spread_pixels": spread,
        }

    def rows(self, measured: Heads) -> list[Row]:
        """One for each head of each block."""
        return [
            {"block": block, "head": head, "pixels": value}
            for block, heads in measured.items()
            for head, value in enumerate(heads.tolist())
        ]

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """A dot for each head, a curve through the means."""
        from vitexp.report.plot_depth import Panel, panels

        panel = Panel(
            title="a mark for each head, the curve their mean; "
            + ("rows renormalised over patches" if self.renormalise else "attention to the class token counts as 0"),
            label="mean attention distance (pixels)",
            curves={label: [float(h.mean()) for h in one.values()] for label, one in measured.items()},
            dots={label: [h.tolist() for h in one.values()] for label, one in measured.items()},
        )
        panels([panel], out, headline="Attention distance by depth", title=title)


class Cells:
    """The places of a map's tokens in the image.

    A map over the whole grid has its cells after `num_prefix` other tokens; a window's tokens are a square of the
    grid, whose cells are as wide as all windows together cover the image; each of MobileViT's sets covers all of it.

    Raises:
        ConfigError: the tokens are no grid.
    """

    def __init__(self, model: nn.Module, weights: Tensor, image: tuple[int, int]) -> None:
        windows, _, queries, _ = weights.shape
        grid, self.prefix = grid_of(model)
        side = math.isqrt(queries)
        if windows == 1 and grid is not None and queries == self.prefix + grid[0] * grid[1]:
            self.grid, self.height, self.width = grid, image[0] / grid[0], image[1] / grid[1]
        elif side * side == queries:
            self.grid, self.prefix = (side, side), 0
            covered = queries if _interleaved(model) else windows * queries
            self.height = self.width = math.sqrt(image[0] * image[1] / covered)
        else:
            raise ConfigError(
                f"analysis=distance places tokens in the image and {queries} queries are no grid; it needs a map over"
                " patches or square windows; use a ViT, DeepViT or Swin V2, or analysis=similarity"
            )

    def mean_distance(self, weights: Tensor, *, renormalise: bool) -> Tensor:
        """(W, H, N, K) weights to the mean distance (H,) in pixels; keys past the grid (memory) are left out."""
        count = self.grid[0] * self.grid[1]
        kept = weights[..., self.prefix : self.prefix + count, self.prefix : self.prefix + count]
        if renormalise:
            kept = kept / kept.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return (kept * self.distances(weights.device)).sum(-1).mean((0, 2))

    def distances(self, device: torch.device | None = None) -> Tensor:
        """(cells, cells), in pixels."""
        rows = torch.arange(self.grid[0], device=device) * self.height
        columns = torch.arange(self.grid[1], device=device) * self.width
        places = torch.cartesian_prod(rows, columns)  # (cells, 2)
        return torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")


def _interleaved(model: nn.Module) -> bool:
    """Whether a sequence is every second pixel of the map, not a window of it."""
    return any(isinstance(module, MobileBlock) for module in model.modules())
