"""Activation amplitude and gradients by depth (Liu et al., "Swin Transformer V2", 2022, Fig. 2).

Of a block's output tokens: the variance over channels and the mean absolute value, averaged over tokens and images.
Of its parameters: the length of the gradient of the loss, which is the mean cross-entropy of the same images, in
evaluation. The paper's claim is that pre-norm models grow with depth and residual post-norm ones stay flat; which norm
a model has is its own configuration, and runs stand beside each other by `analysis.beside`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.gradients import block_gradients
from vitexp.analysis.maps import blocks, look


@dataclass(frozen=True, kw_only=True)
class Amplitudes:
    """Each block's (L,) name, variance over channels, mean absolute value, gradient length (NaN where none); the loss.

    A block whose parameters the loss does not reach, as a frozen base that runs without a graph, has no gradient.
    """

    names: list[str]
    variance: Tensor
    absolute: Tensor
    gradient: Tensor
    loss: float


@final
class Amplitude(Analysis):
    """Channel variance and mean |x| of every block's output, and the gradient of its parameters."""

    name: ClassVar[str] = "amplitude"

    def measure(self, subject: Subject) -> Amplitudes:
        """Stream the images through the model and sum what each block gives."""
        names = list(blocks(subject.model))
        totals = torch.zeros(2, len(names), dtype=torch.float64)

        def on_output(block: int, tokens: Tensor) -> None:
            tokens = tokens.float()
            variance = tokens.var(-1, unbiased=False).mean()
            totals[:, block] += torch.stack([variance, tokens.abs().mean()]).double().cpu()

        for image in subject.images.split(1):
            look(subject.model, image, None, on_output)
        totals /= len(subject.images)
        gradient, loss = block_gradients(subject.model, subject.images, subject.labels)
        return Amplitudes(names=names, variance=totals[0], absolute=totals[1], gradient=gradient, loss=loss)

    def summary(self, measured: Amplitudes) -> dict[str, float]:
        """Variance of the first and the last block, the largest over the smallest of each value, and the loss."""
        variance, gradient = measured.variance, measured.gradient[measured.gradient > 0]
        values = {
            "first_variance": float(variance[0]),
            "last_variance": float(variance[-1]),
            "variance_max_over_min": float(variance.max() / variance.min()),
            "absolute_max_over_min": float(measured.absolute.max() / measured.absolute.min()),
            "loss": measured.loss,
        }
        return values | ({"gradient_max_over_min": float(gradient.max() / gradient.min())} if len(gradient) else {})

    def rows(self, measured: Amplitudes) -> list[Row]:
        """One for each block; the loss is the model's, the same in each."""
        values = (measured.variance, measured.absolute, measured.gradient)
        columns = zip(measured.names, *(value.tolist() for value in values), strict=True)
        return [
            {"block": i, "name": n, "variance": v, "absolute": a, "gradient": g, "loss": measured.loss}
            for i, (n, v, a, g) in enumerate(columns)
        ]

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """Three panels on logarithmic axes."""
        from vitexp.report.plot_depth import Panel, panels

        named = {f"{label}, loss {one.loss:.3g}": one for label, one in measured.items()}
        drawn = [
            Panel(title=what, label=unit, log=True, curves={label: value(one) for label, one in named.items()})
            for what, unit, value in (
                ("mean over tokens of the variance over channels", "variance", lambda one: one.variance.tolist()),
                ("mean absolute value of the tokens", "|x|", lambda one: one.absolute.tolist()),
                ("gradient of the block's parameters", "length (L2)", lambda one: one.gradient.tolist()),
            )
        ]
        panels(drawn, out, headline="Activation amplitude and gradients by depth", title=title)
