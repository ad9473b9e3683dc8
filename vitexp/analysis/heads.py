"""Redundant heads: how like its nearest fellow each head is (Liu et al., "EfficientViT", 2023, section 2.2, Fig. 4).

For each head the largest cosine between its map, as one long vector, and that of any other head of its block; then
the mean over images (and windows). 1 is a head that another one repeats.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.gram import cosines
from vitexp.analysis.maps import look
from vitexp.errors import ConfigError

Heads = dict[str, dict[int, Tensor]]  # name of the map -> block -> (H,)


@final
class HeadSimilarity(Analysis):
    """Largest cosine with another head of the block, by block and head."""

    name: ClassVar[str] = "heads"

    def measure(self, subject: Subject) -> Heads:
        """Stream the images; left out are blocks of one head, which has no fellow, and of one token, all alike."""
        totals: Heads = {}
        for image in subject.images.split(1):

            def on_maps(block: int, maps: dict[str, Tensor]) -> None:
                for kind, weights in maps.items():
                    if min(weights.shape[1], weights.shape[-1]) > 1:
                        by_block = totals.setdefault(kind, {})
                        nearest = nearest_fellow(weights).mean(0).cpu()
                        by_block[block] = by_block.get(block, torch.zeros_like(nearest)) + nearest

            look(subject.model, image, on_maps)
        if not totals:
            raise ConfigError(
                "analysis=heads compares the heads of a block and every block of this model has one head or one token;"
                " it needs two or more; use model.num_heads=2 or more, and a larger size="
            )
        count = len(subject.images)
        return {kind: {b: total / count for b, total in blocks.items()} for kind, blocks in totals.items()}

    def summary(self, measured: Heads) -> dict[str, float]:
        """Mean over heads of all blocks, of the first and of the last."""
        values = {}
        for kind, blocks in measured.items():
            means = [float(heads.mean()) for heads in blocks.values()]
            values[f"{kind}/mean"] = sum(means) / len(means)
            values[f"{kind}/first"], values[f"{kind}/last"] = means[0], means[-1]
        return values

    def rows(self, measured: Heads) -> list[Row]:
        """One for each head of each block."""
        return [
            {"kind": kind, "block": block, "head": head, "cosine": value}
            for kind, blocks in measured.items()
            for block, heads in blocks.items()
            for head, value in enumerate(heads.tolist())
        ]

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """A mark for each head, a curve through the means."""
        from vitexp.report.plot_depth import Panel, panels

        by_label = {f"{label}, {kind} map": b for label, one in measured.items() for kind, b in one.items()}
        panel = Panel(
            title="largest cosine with another head of the block; a mark for each head, the curve their mean",
            label="cosine of maps (1 is a copy)",
            curves={label: [float(h.mean()) for h in blocks.values()] for label, blocks in by_label.items()},
            dots={label: [h.tolist() for h in blocks.values()] for label, blocks in by_label.items()},
        )
        panels([panel], out, headline="Similarity of heads by depth", title=title)


def nearest_fellow(weights: Tensor) -> Tensor:
    """(W, H, N, K) maps to (W, H): each head's largest cosine with another."""
    pairs = cosines(weights.flatten(2).float())  # (W, H, H)
    own = torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(own, -torch.inf).amax(-1)
