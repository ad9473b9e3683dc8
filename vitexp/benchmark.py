"""`vitexp benchmark`: seconds of a forward and of a training step beside timm's same model, as ratios in one run.

The two models take turns on the same images with the same optimizer, and our weights are loaded into timm's, because
the time of a kernel depends on the numbers it meets.
"""

from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp import build
from vitexp.checkpoint.load import export_names
from vitexp.command import Command
from vitexp.errors import ConfigError
from vitexp.report.screen import say, show
from vitexp.report.table import value_table
from vitexp.timing import Timing, alternate


def benchmark(command: Command) -> dict[str, Any]:
    """Time `model=` against `benchmark.peer` of timm at `size=` and `bs=`; returns ratios, above 1 if ours is faster.

    Raises:
        ConfigError: timm is not installed, or its model is another one.
    """
    cfg = command.cfg
    ours, peer = build.build_model(cfg), _peer(cfg)
    if sum(p.numel() for p in ours.parameters()) != sum(p.numel() for p in peer.parameters()):
        raise ConfigError(
            f"benchmark.peer={cfg.benchmark.peer} is not model={cfg.chosen.model} at size={cfg.data.image_size}: their"
            " parameter counts differ; name timm's same model, as in benchmark.peer=vit_tiny_patch16_224"
        )
    peer.load_state_dict(export_names(ours))
    images = torch.randn(cfg.data.batch_size, cfg.data.channels, cfg.data.image_size, cfg.data.image_size)
    labels = torch.arange(len(images)) % cfg.data.num_classes
    rows, ratios = [], {}
    for what, work in (("forward", _forward), ("training step", _step)):
        contenders = {"timm": work(cfg, peer, images, labels), "vitexp": work(cfg, ours, images, labels)}
        timings = alternate(contenders, repeats=cfg.benchmark.repeats)
        rows += [_row(what, name, timing, len(images)) for name, timing in timings.items()]
        ratios[what] = timings["vitexp"].ratio
    if not cfg.quiet:
        say(f"{cfg.chosen.model}, batch {len(images)}, {torch.get_num_threads()} thread(s), medians", quiet=False)
        show(value_table(["", "", "ms", "fastest", "slowest", "img/s", "× timm"], rows), quiet=False)
    return ratios


def _peer(cfg: DictConfig) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ConfigError("benchmark needs timm beside vitexp; type: pip install timm") from None
    model: nn.Module = timm.create_model(cfg.benchmark.peer, num_classes=cfg.data.num_classes)
    return model


def _forward(cfg: DictConfig, model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    def work() -> Tensor:
        model.eval()
        with torch.inference_mode():
            logits: Tensor = model(images)
        return logits

    return work


def _step(cfg: DictConfig, model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    optimizer = build.make(cfg.optimizer)(model.parameters())

    def work() -> None:
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return work


def _row(what: str, name: str, timing: Timing, images: int) -> tuple[object, ...]:
    milliseconds = [round(1000 * value, 1) for value in (timing.seconds, timing.fastest, timing.slowest)]
    return (what, name, *milliseconds, round(images / timing.seconds, 1), round(timing.ratio, 3))
