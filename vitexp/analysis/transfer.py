"""Accuracy of one trained model at other image and window sizes, as it is and after fine-tuning there.

Liu et al., "Swin Transformer V2" (2022), Table 1: a position bias that was trained in small windows is asked about
larger ones. The bias (parameterised, linear or logarithmic) is the trained model's own; runs of the three stand
beside each other by `analysis.beside`. Sizes and windows are keys of the configuration, everything else of the model
stays as it was trained: its patch too, which the small-image rule would change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from torch import nn

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Image side in pixels, window in cells (None: as trained), top-1 as it is, top-1 fine-tuned (None: not tried)."""

    size: int
    window: int | None
    plain: float
    tuned: float | None


@final
class Transfer(Analysis):
    """Test accuracy at each size.

    Args:
        sizes: image sides in pixels.
        windows: window sides in cells, one for each size; empty leaves the window as it was trained.
        window_key: where the model's configuration has its window.
        pretrained_key: where it has the windows that the weights were trained with, which position biases are scaled
            by; set to the trained windows where the configuration leaves it open.
        finetune_epochs: passes over the training images at each size before the second test; 0 is none.
    """

    name: ClassVar[str] = "transfer"
    samples: ClassVar[bool] = False

    def __init__(
        self,
        *,
        sizes: Sequence[int],
        windows: Sequence[int],
        window_key: str,
        pretrained_key: str,
        finetune_epochs: int,
    ) -> None:
        if windows and len(windows) != len(sizes):
            raise ConfigError(
                f"analysis.windows={list(windows)} are {len(windows)} and analysis.sizes={list(sizes)} are"
                f" {len(sizes)}; each size has its window; give as many, or analysis.windows=[] to keep the trained one"
            )
        kept: list[int | None] = [None] * len(sizes)
        self.sizes, self.windows = sizes, list(windows) or kept
        self.pretrained_key = pretrained_key
        self.window_key, self.finetune_epochs = window_key, finetune_epochs

    def measure(self, subject: Subject) -> list[Trial]:
        """Test at each size, then fine-tune there and test again."""
        trials, unset = [], {self.pretrained_key: trained_windows(subject.model)}
        for size, window in zip(self.sizes, self.windows, strict=True):
            changes: dict[str, Any] = {"data.image_size": size}
            if window is not None:
                changes[self.window_key] = window
            plain = subject.trial(changes, unset=unset)
            tuned = subject.trial(changes, unset=unset, epochs=self.finetune_epochs) if self.finetune_epochs else None
            trials.append(Trial(size=size, window=window, plain=plain, tuned=tuned))
        return trials

    def summary(self, measured: list[Trial]) -> dict[str, float]:
        """Top-1 at each size."""
        values = {}
        for trial in measured:
            name = f"{trial.size}px" + (f"_window{trial.window}" if trial.window is not None else "")
            values[f"{name}/top1"] = trial.plain
            if trial.tuned is not None:
                values[f"{name}/top1_tuned"] = trial.tuned
        return values

    def rows(self, measured: list[Trial]) -> list[Row]:
        """One for each size."""
        return [
            {"size": t.size, "window": _blank(t.window), "top1": t.plain, "top1_tuned": _blank(t.tuned)}
            for t in measured
        ]

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """A curve for each model over the sizes, fine-tuned ones beside."""
        from vitexp.report.plot_depth import Panel, panels

        curves: dict[str, list[float]] = {}
        for label, trials in measured.items():
            curves[label] = [100 * trial.plain for trial in trials]
            if self.finetune_epochs:
                curves[f"{label}, fine-tuned"] = [100 * (trial.tuned or 0.0) for trial in trials]
        tuned = f"; fine-tuned there, epochs: {self.finetune_epochs}" if self.finetune_epochs else ""
        windows = "" if self.windows[0] is None else f"; windows of {', '.join(map(str, self.windows))} cells"
        panel = Panel(
            title=f"tested at other image sizes than trained{windows}{tuned}",
            label="top-1 (% of test images)",
            curves=curves,
            places=list(self.sizes),
            across="image side (pixels)",
        )
        panels([panel], out, headline="Accuracy at other sizes", title=title)


def trained_windows(model: nn.Module) -> list[int] | None:
    """Side of the windows of each stage as they are, clamped to the stage's map; None for a model without windows."""
    parts = dict(model.named_children())
    stages = parts["stages"].children() if "stages" in parts else ()
    blocks = [held["blocks"] for stage in stages if "blocks" in (held := dict(stage.named_children()))]
    windows = [getattr(next(each.children()), "windows", None) for each in blocks]
    sides = [int(cut.window[0]) for cut in windows if cut is not None]
    return sides if len(sides) == len(windows) > 0 else None


def _blank(value: float | None) -> float | str:
    return "" if value is None else value
