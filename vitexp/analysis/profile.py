"""The shares of the run time (Liu et al., "EfficientViT", 2023, section 2.1, Fig. 2 and 3), by torch.profiler.

Of a forward, or of one with the gradients of the loss behind it, in evaluation.

By kind of operation: arithmetic (matrix products, convolutions, fused attention) against memory-bound ones (reshaping,
copies, element-wise work with softmax, normalisation). By part of the model: attention modules, MLPs, the rest; beside
each part's share of the multiply-accumulates. An operation's own time counts, without what it calls. Of the fused
attention kernel all counts as arithmetic. EfficientViT's LocalMlp counts as an MLP with its depthwise convolution.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.maps import evaluating
from vitexp.analysis.parts import passing
from vitexp.errors import ConfigError

# Words in the name of an aten operation -> kind; the first that matches counts.
_WORDS = (
    ("arithmetic", ("mm", "conv", "scaled_dot_product", "attention", "linear", "einsum", "matmul", "dot")),
    ("normalisation", ("norm", "var", "rsqrt")),
    ("copy", ("copy", "cat", "clone", "contiguous", "stack", "fill", "zero", "empty", "pad", "resize", "_to", "::to")),
    ("reshape", ("view", "reshape", "permute", "transpose", "flatten", "expand", "as_strided", "slice", "select")),
    ("reshape", ("squeeze", "split", "chunk", "unbind", "roll", "index", "gather", "narrow", "fold", "::t", "alias")),
    (
        "element-wise",
        ("add", "mul", "sub", "div", "gelu", "relu", "sigmoid", "silu", "softmax", "exp", "clamp", "mean"),
    ),
    (
        "element-wise",
        ("sum", "max", "min", "where", "tanh", "erf", "sqrt", "pow", "log", "neg", "eq", "lt", "gt", "sign"),
    ),
)
KINDS = ("arithmetic", "element-wise", "normalisation", "copy", "reshape", "other")
Shares = dict[str, float]
MEMORY_BOUND = ("element-wise", "normalisation", "copy", "reshape")
PARTS = ("attention", "mlp", "rest")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler reports on standard error that there is no GPU
_SIDE = 1024  # of the matrix product that says what the machine can do


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Seconds by kind and by part (profiled), multiply-accumulates by part for the batch, and the plain latency."""

    kinds: dict[str, float]
    parts: dict[str, float]
    macs: dict[str, int]
    latency: float
    images: int
    peak: float

    @property
    def memory_bound(self) -> float:
        """Share of the time in memory-bound operations."""
        return sum(self.kinds[kind] for kind in MEMORY_BOUND) / sum(self.kinds.values())


@final
class Profiled(Analysis):
    """Shares of run time by kind of operation and by part of the model.

    Args:
        repeats: forwards that are timed and profiled.
        backward: whether each is a forward with the gradient of the loss behind it, as a training step has.
    """

    name: ClassVar[str] = "profile"
    compares: ClassVar[bool] = False

    def __init__(self, *, repeats: int, backward: bool) -> None:
        self.repeats, self.backward = repeats, backward

    def measure(self, subject: Subject) -> Profile:
        """Time, count and profile one batch of all images."""
        model, images = subject.model, subject.images
        work = self._work(model, images, subject.labels)
        with torch.set_grad_enabled(self.backward), evaluating(model):
            work()  # warm: the first call allocates and chooses kernels
            latency = _median_seconds(work, images.device, self.repeats)
            kinds, parts = _profiled(model, work, images.device.type == "cuda", self.repeats)
            macs = _macs(model, work)
        return Profile(
            kinds=kinds, parts=parts, macs=macs, latency=latency, images=len(images), peak=peak_macs(images.device)
        )

    def _work(self, model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
        """One forward, or one with the gradient of the loss."""
        if not self.backward:
            return lambda: model.forward(images)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained:
            raise ConfigError(
                "analysis.backward=true profiles a training step and nothing of this model trains; it needs a regime"
                " that trains something; use analysis.backward=false"
            )
        return lambda: torch.autograd.grad(
            F.cross_entropy(model.forward(images).float(), labels), trained, allow_unused=True
        )

    def summary(self, measured: Profile) -> dict[str, float]:
        """Shares of the time, images a second, and multiply-accumulates a second over those of a matrix product."""
        time_of = measured.parts
        done = sum(measured.macs.values()) / measured.latency
        return {
            "memory_bound_share": measured.memory_bound,
            **{f"{kind}_share": measured.kinds[kind] / sum(measured.kinds.values()) for kind in KINDS},
            "attention_share": time_of["attention"] / sum(time_of.values()),
            "mlp_share": time_of["mlp"] / sum(time_of.values()),
            "attention_to_mlp": time_of["attention"] / time_of["mlp"] if time_of["mlp"] else float("nan"),
            "images_per_second": measured.images / measured.latency,
            "gmacs_per_second": done / 1e9,
            "share_of_peak": done / measured.peak,
        }

    def rows(self, measured: Profile) -> list[Row]:
        """One for each kind and each part."""
        total = sum(measured.kinds.values())
        rows: list[Row] = [
            {"by": "kind", "name": kind, "seconds": seconds, "share": seconds / total, "macs": ""}
            for kind, seconds in measured.kinds.items()
        ]
        whole = sum(measured.parts.values())
        for part, seconds in measured.parts.items():
            row = {"by": "part", "name": part, "seconds": seconds, "share": seconds / whole}
            rows.append({**row, "macs": measured.macs[part]})
        return rows

    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """Shares by kind, and time beside arithmetic by part."""
        from vitexp.report.plot_profile import shares

        one: Profile = next(iter(measured.values()))
        values = self.summary(one)
        note = (
            f"{'forward and backward' if self.backward else 'forward'}: {1000 * one.latency:.3g} ms for"
            f" {one.images} images, {values['gmacs_per_second']:.3g} GMAC/s,"
            f" {100 * values['share_of_peak']:.0f} % of a {_SIDE}-square matrix product here"
        )
        shares(one.kinds, MEMORY_BOUND, one.parts, one.macs, out, note=note, title=title)


def kind_of(operation: str) -> str:
    """The kind of an aten operation by its name."""
    name = operation.lower()
    return next((kind for kind, words in _WORDS if any(word in name for word in words)), "other")


def peak_macs(device: torch.device) -> float:
    """Multiply-accumulates a second of one large fp32 matrix product here."""
    a = torch.randn(_SIDE, _SIDE, device=device)
    return float(_SIDE**3 / _median_seconds(lambda: a @ a, device, 5))


def _median_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    work()
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _profiled(model: nn.Module, work: Callable[[], object], on_gpu: bool, repeats: int) -> tuple[Shares, Shares]:
    """Seconds of one call of `work` by kind and by part."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    open_marks: list[Any] = []

    def enter(part: str) -> None:
        open_marks.append(record_function(f"vitexp::{part}").__enter__())

    def leave(part: str) -> None:
        open_marks.pop().__exit__(None, None, None)

    with passing(model, enter, leave), profile(activities=activities, acc_events=True) as profiler:
        for _ in range(repeats):
            with record_function("vitexp::whole"):
                work()
    kinds = dict.fromkeys(KINDS, 0.0)
    marks = dict.fromkeys(("attention", "mlp", "whole"), 0.0)
    for event in profiler.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        whole = event.device_time_total if on_gpu else event.cpu_time_total
        if event.key.startswith("aten::"):
            kinds[kind_of(event.key)] += own / 1e6 / repeats
        elif (mark := event.key.removeprefix("vitexp::")) in marks and event.key != mark:
            # On a GPU a mark has a row for the host and one for the device; only the host's sums the kernels under it.
            marks[mark] = max(marks[mark], whole / 1e6 / repeats)
    rest = max(marks["whole"] - marks["attention"] - marks["mlp"], 0.0)
    return kinds, {"attention": marks["attention"], "mlp": marks["mlp"], "rest": rest}


def _macs(model: nn.Module, work: Callable[[], object]) -> dict[str, int]:
    """Multiply-accumulates of the batch by part; the plain attention kernel is one that the counter knows."""
    macs, begun = {"attention": 0, "mlp": 0}, list[int]()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:

        def enter(part: str) -> None:
            begun.append(counter.get_total_flops())

        def leave(part: str) -> None:
            macs[part] += (counter.get_total_flops() - begun.pop()) // 2

        with passing(model, enter, leave):
            work()
        total = counter.get_total_flops() // 2
    return {**macs, "rest": total - sum(macs.values())}
