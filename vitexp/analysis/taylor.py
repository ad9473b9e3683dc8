"""The channels of Q/K, V and FFN that each block needs (Liu et al., "EfficientViT", 2023, section 2.3, Fig. 5).

Importance of a channel: the square of dL/dgate, averaged over batches. Rounds of pruning take the least important
channels of the whole model until its multiply-accumulates meet the round's share, and score again. The paper gives no
procedure; this one is ours. Heads of a block lose equally many channels (the r-th best of each is one unit, scored by
their mean), so that the pruned model is sliced matrices and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.gates import Gates, Unit, derivatives, open_gates, unit_macs
from vitexp.errors import ConfigError
from vitexp.layer.mlp import Mlp
from vitexp.model.narrow import UNITS, prunable, slice_attention, slice_mlp

PARTS = {"qk": "queries and keys", "v": "values", "hidden": "FFN hidden"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The result of a round: gates at 1 or 0, the share of multiply-accumulates asked for and the one left."""

    gates: Gates
    asked: float
    left: float

    def kept(self, unit: Unit) -> tuple[int, int]:
        """(channels kept, channels there were): a head's for attentions."""
        gate = self.gates[unit]
        return int(gate[0].sum() if gate.ndim == 2 else gate.sum()), gate.shape[-1]


@final
class Taylor(Analysis):
    """Rounds of structured pruning by Taylor importance.

    Args:
        budget: share of the model's multiply-accumulates that is left in the end.
        rounds: steps to it, equal in multiply-accumulates; scores are taken again at each.
        batch: images of one gradient, whose square is averaged over batches.
        normalise: whether scores are divided by the length of their layer's (of one kind).
    """

    name: ClassVar[str] = "taylor"
    compares: ClassVar[bool] = False

    def __init__(self, *, budget: float, rounds: int, batch: int, normalise: bool) -> None:
        self.budget, self.rounds, self.batch, self.normalise = budget, rounds, batch, normalise

    def measure(self, subject: Subject) -> list[Plan]:
        """One plan a round, the last with `budget`.

        Raises:
            ConfigError: nothing to prune, or a budget that pruning cannot reach.
        """
        model = subject.model
        if not prunable(model):
            raise ConfigError(
                f"analysis=taylor prunes attentions with a map and MLPs, and {type(model).__name__} has none; use a"
                " ViT, DeepViT or Swin V2, or analysis=profile"
            )
        costs, total = unit_macs(model, subject.images[:1]), subject.count_macs(model)
        gates, left, plans = open_gates(model), float(total), list[Plan]()
        for number in range(1, self.rounds + 1):
            asked = 1 - (1 - self.budget) * number / self.rounds
            ranked = self._ranked(self._importance(subject, gates), gates)
            left = _close(ranked, gates, costs, left, asked * total)
            kept = {unit: gate.clone() for unit, gate in gates.items()}
            plans.append(Plan(gates=kept, asked=asked, left=left / total))
        return plans

    def _importance(self, subject: Subject, gates: Gates) -> Gates:
        """Mean over batches of the squared slope of each channel."""
        scores = {unit: torch.zeros_like(gate) for unit, gate in gates.items()}
        batches = list(zip(subject.images.split(self.batch), subject.labels.split(self.batch), strict=True))
        for images, labels in batches:
            for unit, slope in derivatives(subject.model, gates, images, labels).items():
                scores[unit] += slope.square() / len(batches)
        if self.normalise:
            tiny = torch.finfo(torch.float32).tiny
            scores = {unit: score / score.norm().clamp_min(tiny) for unit, score in scores.items()}
        return scores

    @staticmethod
    def _ranked(scores: Gates, gates: Gates) -> dict[Unit, list[tuple[float, Tensor]]]:
        """The open channels of each layer and kind in groups, best first: (score, channel of each head)."""
        ranked = {}
        for unit, score in scores.items():
            rows = torch.atleast_2d(score.masked_fill(gates[unit] == 0, -1.0))  # (H, d)
            values, channels = rows.sort(dim=-1, descending=True, stable=True)
            means = values.mean(0).tolist()
            ranked[unit] = [(mean, channels[:, rank]) for rank, mean in enumerate(means) if mean >= 0]
        return ranked

    def summary(self, measured: list[Plan]) -> dict[str, float]:
        """The last round's share of multiply-accumulates left, and mean share of channels kept by kind."""
        last = measured[-1]
        shares = {
            kind: [k / n for unit in last.gates if unit[1] == kind for k, n in [last.kept(unit)]] for kind in UNITS
        }
        return {"macs_left": last.left, **{f"{kind}/kept": sum(s) / len(s) for kind, s in shares.items() if s}}

    def rows(self, measured: list[Plan]) -> list[Row]:
        """One for each round, layer and kind."""
        rows = []
        for plan in measured:
            for unit in plan.gates:
                kept, original = plan.kept(unit)
                row = {"budget": plan.asked, "macs_left": plan.left, "layer": unit[0], "kind": unit[1]}
                rows.append({**row, "kept": kept, "original": original})
        return rows

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """A panel for each kind, a curve for each round."""
        from vitexp.report.plot_depth import Panel, panels

        plans: list[Plan] = next(iter(measured.values()))
        drawn = []
        for kind, name in PARTS.items():
            units = [unit for unit in plans[0].gates if unit[1] == kind]
            curves = {
                f"{100 * plan.left:.0f} % of the MACs": [100 * k / n for k, n in map(plan.kept, units)]
                for plan in plans[-6:]
            }
            drawn.append(Panel(title=name, label="channels kept (%)", curves=curves, bottom=0.0))
        panels(drawn, out, headline="Channels that Taylor pruning keeps", title=title)


def _close(
    ranked: dict[Unit, list[tuple[float, Tensor]]], gates: Gates, costs: dict[Unit, int], left: float, wanted: float
) -> float:
    """Close the worst groups until `wanted` MACs are left, one group of each layer always staying; what is left."""
    heap = [(groups[-1][0], index, unit) for index, (unit, groups) in enumerate(ranked.items()) if len(groups) > 1]
    heapify(heap)
    while left > wanted:
        if not heap:
            raise ConfigError(
                "analysis.budget is below what pruning can reach: every layer is at one channel; use a larger"
                " analysis.budget"
            )
        _, index, unit = heappop(heap)
        _, channels = ranked[unit].pop()
        rows = torch.atleast_2d(gates[unit])  # a view: closing its channels closes the gate's
        rows[torch.arange(len(rows), device=rows.device), channels] = 0.0
        left -= costs[unit]
        if len(ranked[unit]) > 1:
            heappush(heap, (ranked[unit][-1][0], index, unit))
    return left


def slice_model(model: nn.Module, gates: Gates) -> list[dict[str, Any]]:
    """Take the closed channels out of the matrices, in place; the widths left, as `Narrow` takes them."""
    layers: list[dict[str, Any]] = []
    for name, layer in prunable(model).items():
        if isinstance(layer, Mlp):
            hidden = gates[name, "hidden"].nonzero().flatten().cpu()
            slice_mlp(layer, hidden)
            layers.append({"name": name, "hidden": len(hidden)})
        else:
            qk, v = (
                gates[name, kind].nonzero()[:, 1].unflatten(0, (layer.num_heads, -1)).cpu() for kind in ("qk", "v")
            )
            slice_attention(layer, qk, v)
            layers.append({"name": name, "qk": qk.shape[1], "v": v.shape[1]})
    return layers
