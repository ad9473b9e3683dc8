"""Attention collapse: how alike the maps of different blocks are (Zhou et al., "DeepViT", 2021, equation 2, Fig. 3).

For head h and key token t, the column A[h, :, t] says how much t gives to each token; blocks p and q are compared by
the cosine of these columns, over the query axis. ratio(p, q) is the share of (image, h, t) whose cosine exceeds
`tau`; a block is similar when its ratio with the block before exceeds `block_ratio`. Both thresholds are conventions
(the paper's own are not published), so the mean cosine, which needs none, stands beside them. Maps that are nowhere
negative are never orthogonal: the untrained model's values are the zero of the scale.

Images go one by one: at most the maps of one image are in memory, and what stays is a sum of (L, L) matrices.
Blocks whose maps differ in shape (stages of a pyramid) are not compared. Windows count like images; where they shift
from block to block, t is the t-th place of its window, not of the image.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.gram import CosineSums
from vitexp.analysis.maps import look
from vitexp.errors import ConfigError


@dataclass
class SimilaritySums:
    """The sums over images: of the maps by name (blocks, and heads in each block) and of the blocks' output tokens."""

    blocks: dict[str, CosineSums] = field(default_factory=dict)
    heads: dict[str, dict[int, CosineSums]] = field(default_factory=dict)
    tokens: CosineSums | None = None


@final
class Similarity(Analysis):
    """Cosines between blocks' maps, between heads of a block and between blocks' output tokens.

    Args:
        tau: a pair of vectors is similar above this cosine.
        block_ratio: a block is similar if this share of its vectors is similar to the block before.
        nearest: number of nearest blocks that a block's k-nearest score is averaged over.
    """

    name: ClassVar[str] = "similarity"

    def __init__(self, *, tau: float, block_ratio: float, nearest: int) -> None:
        self.tau, self.block_ratio, self.nearest = tau, block_ratio, nearest

    def measure(self, subject: Subject) -> SimilaritySums:
        """Stream the images through the model."""
        alike = SimilaritySums()
        for image in subject.images.split(1):
            seen: dict[str, dict[int, Tensor]] = {}
            outputs: dict[int, Tensor] = {}

            def on_maps(block: int, maps: dict[str, Tensor], seen: dict[str, dict[int, Tensor]] = seen) -> None:
                for kind, weights in maps.items():
                    columns = weights.transpose(-2, -1).float()  # (W, H, T, N): a vector for each key token
                    self._add_heads(alike, kind, block, columns)
                    seen.setdefault(kind, {})[block] = columns

            look(subject.model, image, on_maps, outputs.__setitem__)
            self._add_blocks(alike, seen, outputs)
        self._require_pairs(alike)
        return alike

    def _add_heads(self, alike: SimilaritySums, kind: str, block: int, columns: Tensor) -> None:
        sums = alike.heads.setdefault(kind, {}).setdefault(block, CosineSums(tau=self.tau))
        sums.add(columns.transpose(1, 2), size=columns.shape[1])  # (W, T, H, N)

    def _add_blocks(
        self, alike: SimilaritySums, seen: dict[str, dict[int, Tensor]], outputs: dict[int, Tensor]
    ) -> None:
        for kind, by_block in seen.items():
            sums = alike.blocks.setdefault(kind, CosineSums(tau=self.tau))
            _add_equal_shapes(sums, by_block)
        alike.tokens = alike.tokens or CosineSums(tau=self.tau)
        _add_equal_shapes(alike.tokens, {b: output.float().unsqueeze(1) for b, output in outputs.items()})

    @staticmethod
    def _require_pairs(alike: SimilaritySums) -> None:
        if all(len(sums.ratio) < 2 for sums in alike.blocks.values()):
            raise ConfigError(
                "analysis=similarity compares blocks and this model has one attention; it needs two or more; use"
                " model.depth=2 or deeper"
            )

    def similar_blocks(self, ratio: Tensor) -> int:
        """Number of blocks whose ratio with the block before exceeds `block_ratio`; of at most L - 1."""
        return int((ratio.diagonal(offset=1) > self.block_ratio).sum())

    def nearest_score(self, ratio: Tensor) -> Tensor:
        """(L,): mean ratio with the `nearest` blocks by distance in depth, the earlier first; NaN if none compares."""
        size = len(ratio)
        scores = torch.full((size,), torch.nan, dtype=ratio.dtype)
        for block in range(size):
            others = sorted((q for q in range(size) if q != block), key=lambda q: (abs(q - block), q))
            near = [float(ratio[block, q]) for q in others if not ratio[block, q].isnan()][: self.nearest]
            scores[block] = sum(near) / len(near) if near else torch.nan
        return scores

    def summary(self, measured: SimilaritySums) -> dict[str, float]:
        """Adjacent and nearest ratio, adjacent cosine, similar blocks, likeness of heads by map; and of output tokens.

        What no two neighbours of one shape have is left out.
        """
        values: dict[str, float] = {}
        for kind, sums in measured.blocks.items():
            values[f"{kind}/adjacent_ratio"] = float(sums.ratio.diagonal(offset=1).nanmean())
            values[f"{kind}/adjacent_cosine"] = float(sums.mean.diagonal(offset=1).nanmean())
            values[f"{kind}/nearest_ratio"] = float(self.nearest_score(sums.ratio).nanmean())
            values[f"{kind}/similar_blocks"] = float(self.similar_blocks(sums.ratio))
            between = [off_diagonal(s.mean) for s in measured.heads[kind].values() if len(s.mean) > 1]
            if between:
                values[f"{kind}/heads_cosine"] = float(torch.cat(between).mean())
        if measured.tokens is not None:
            values["tokens/adjacent_cosine"] = float(measured.tokens.mean.diagonal(offset=1).nanmean())
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def rows(self, measured: SimilaritySums) -> list[Row]:
        """Each pair of blocks by map, each pair of heads by block and map, each pair of blocks by output tokens."""
        rows = []
        for kind, sums in measured.blocks.items():
            rows += _pair_rows(sums, between="blocks", kind=kind, block="")
            for block, heads in measured.heads[kind].items():
                rows += _pair_rows(heads, between="heads", kind=kind, block=block)
        if measured.tokens is not None:
            rows += _pair_rows(measured.tokens, between="tokens", kind="output", block="")
        return rows

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """Curves by depth, and the (block, block) map of the first measurement, thresholds said."""
        from vitexp.report.plot_similarity import BlockCurves, similarity

        curves = {
            (label, kind): BlockCurves(
                adjacent=sums.ratio.diagonal(offset=1).numpy(),
                nearest=self.nearest_score(sums.ratio).numpy(),
                cosine=sums.mean.diagonal(offset=1).numpy(),
                heads=[float(off_diagonal(s.mean).mean()) for s in alike.heads[kind].values()],
                tokens=alike.tokens.mean.diagonal(offset=1).numpy(),
                similar=self.similar_blocks(sums.ratio),
                pairs=sums.ratio.numpy(),
            )
            for label, alike in measured.items()
            for kind, sums in alike.blocks.items()
        }
        similarity(curves, out, tau=self.tau, block_ratio=self.block_ratio, nearest=self.nearest, title=title)


def off_diagonal(pairs: Tensor) -> Tensor:
    """The entries (L (L - 1),) of a matrix (L, L) that are not on its diagonal."""
    return pairs[~torch.eye(len(pairs), dtype=torch.bool)]


def _add_equal_shapes(sums: CosineSums, by_block: dict[int, Tensor]) -> None:
    """Compare tensors (B, H, T, n) with those of their own shape, one head at a time: no stack of all maps."""
    shapes: dict[torch.Size, list[int]] = {}
    for block, tensor in by_block.items():
        shapes.setdefault(tensor.shape, []).append(block)
    for shape, members in shapes.items():
        for head in range(shape[1]):
            vectors = torch.stack([by_block[block][:, head] for block in members], dim=-2)  # (B, T, l, n)
            sums.add(vectors, size=max(by_block) + 1, members=torch.tensor(members))


def _pair_rows(sums: CosineSums, **where: object) -> list[Row]:
    mean, ratio = sums.mean.tolist(), sums.ratio.tolist()
    pairs = [(p, q) for p in range(len(mean)) for q in range(p + 1, len(mean))]
    return [{**where, "first": p, "second": q, "cosine": mean[p][q], "ratio": ratio[p][q]} for p, q in pairs]
