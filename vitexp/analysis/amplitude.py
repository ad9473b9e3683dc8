"""Activation amplitude by depth: what each block hands to the next (Liu et al., "Swin Transformer V2", 2022, Fig. 2).

Of a block's output tokens: the variance over channels and the mean absolute value, averaged over tokens and images.
The paper's claim is that pre-norm models grow with depth and residual post-norm ones stay flat; which norm a model
has is its own configuration, and runs stand beside each other by `analysis.beside`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.maps import blocks, look


@dataclass(frozen=True, kw_only=True)
class Amplitudes:
    """By block (L,): name, variance over channels, mean absolute value."""

    names: list[str]
    variance: Tensor
    absolute: Tensor


@final
class Amplitude(Analysis):
    """Channel variance and mean |x| of every block's output."""

    name: ClassVar[str] = "amplitude"

    def measure(self, subject: Subject) -> Amplitudes:
        """Stream the images."""
        names = list(blocks(subject.model))
        totals = torch.zeros(2, len(names), dtype=torch.float64)

        def on_output(block: int, tokens: Tensor) -> None:
            tokens = tokens.float()
            variance = tokens.var(-1, unbiased=False).mean()
            totals[:, block] += torch.stack([variance, tokens.abs().mean()]).double().cpu()

        for image in subject.images.split(1):
            look(subject.model, image, None, on_output)
        totals /= len(subject.images)
        return Amplitudes(names=names, variance=totals[0], absolute=totals[1])

    def summary(self, measured: Amplitudes) -> dict[str, float]:
        """Variance of the first and the last block, and the largest over the smallest."""
        variance = measured.variance
        return {
            "first_variance": float(variance[0]),
            "last_variance": float(variance[-1]),
            "variance_max_over_min": float(variance.max() / variance.min()),
            "absolute_max_over_min": float(measured.absolute.max() / measured.absolute.min()),
        }

    def rows(self, measured: Amplitudes) -> list[Row]:
        """One for each block."""
        values = zip(measured.names, measured.variance.tolist(), measured.absolute.tolist(), strict=True)
        return [{"block": i, "name": n, "variance": v, "absolute": a} for i, (n, v, a) in enumerate(values)]

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """Two panels on logarithmic axes."""
        from vitexp.report.plot_depth import Panel, panels

        drawn = [
            Panel(title=what, label=unit, log=True, curves={label: value(one) for label, one in measured.items()})
            for what, unit, value in (
                ("mean over tokens of the variance over channels", "variance", lambda one: one.variance.tolist()),
                ("mean absolute value", "|x|", lambda one: one.absolute.tolist()),
            )
        ]
        panels(drawn, out, headline="Activation amplitude by depth", title=title)
