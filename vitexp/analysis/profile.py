"""Where the time of a forward goes (Liu et al., "EfficientViT", 2023, section 2.1, Fig. 2 and 3), by torch.profiler.

By kind of operation: arithmetic (matrix products, convolutions, fused attention) against memory-bound ones (reshaping,
copies, element-wise work with softmax, normalisation). By part of the model: attention modules, MLPs, the rest; beside
each part's share of the multiply-accumulates. An operation's own time counts, without what it calls. Of the fused
attention kernel all counts as arithmetic. EfficientViT's LocalMlp counts as an MLP with its depthwise convolution.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from vitexp.analysis.base import Analysis, Row, Subject
from vitexp.analysis.maps import evaluating

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
    """

    name: ClassVar[str] = "profile"
    compares: ClassVar[bool] = False

    def __init__(self, *, repeats: int) -> None:
        self.repeats = repeats

    def measure(self, subject: Subject) -> Profile:
        """Time, count and profile one batch of all images."""
        model, images = subject.model, subject.images
        with torch.no_grad(), evaluating(model):
            model.forward(images)  # warm: the first call allocates and chooses kernels
            latency = _median_seconds(lambda: model.forward(images), images.device, self.repeats)
            kinds, parts = _profiled(model, images, self.repeats)
            macs = _macs(model, images)
        return Profile(
            kinds=kinds, parts=parts, macs=macs, latency=latency, images=len(images), peak=peak_macs(images.device)
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
            f"{1000 * one.latency:.3g} ms for {one.images} images, {values['gmacs_per_second']:.3g} GMAC/s,"
            f" {100 * values['share_of_peak']:.0f} % of a {_SIDE}-square matrix product here"
        )
        shares(one.kinds, MEMORY_BOUND, one.parts, one.macs, out, note=note, title=title)


def kind_of(operation: str) -> str:
    """The kind of an aten operation by its name."""
    name = operation.lower()
    return next((kind for kind, words in _WORDS if any(word in name for word in words)), "other")


def part_of(module: nn.Module) -> str | None:
    """Attention for what stands in vitexp.attention, mlp for a class of that name; None for anything else."""
    if type(module).__module__.startswith("vitexp.attention.") and hasattr(module, "num_heads"):
        return "attention"
    return "mlp" if type(module).__name__.endswith("Mlp") else None


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


def _profiled(model: nn.Module, images: Tensor, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of one forward by kind and by part."""
    on_gpu = images.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with _marked(model), profile(activities=activities, acc_events=True) as profiler:
        for _ in range(repeats):
            with record_function("vitexp::whole"):
                model.forward(images)
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


@contextmanager
def _marked(model: nn.Module) -> Iterator[None]:
    """Let each part run under a mark of its name."""
    marks: list[Any] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        marks.append(record_function(f"vitexp::{part_of(module)}").__enter__())

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        marks.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        for module in _parts(model).values():
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """Attentions and MLPs by name; one inside another is the outer one's."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and part_of(module) is not None:
            found[name] = module
    return found


def _macs(model: nn.Module, images: Tensor) -> dict[str, int]:
    """Multiply-accumulates of the batch by part; the plain attention kernel is one that the counter knows."""
    macs, begun = {"attention": 0, "mlp": 0}, list[int]()
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        counter = stack.enter_context(FlopCounterMode(display=False))

        def enter(module: nn.Module, inputs: Any) -> None:
            begun.append(counter.get_total_flops())

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            macs[str(part_of(module))] += (counter.get_total_flops() - begun.pop()) // 2

        for module in _parts(model).values():
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        model.forward(images)
        total = counter.get_total_flops() // 2
    return {**macs, "rest": total - sum(macs.values())}
