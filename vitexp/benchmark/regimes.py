"""`benchmark what=regimes`: what a regime's step costs, and what several tasks on one base cost at inference.

Training: `head`, `memory_masked`, `memory` and `full` take turns on the same images; beside the time stands the memory
that a step keeps for its backward pass, and on a GPU the most that a step takes beyond what stays between steps.
Inference: the base, 1, 4 and 10 tasks of masked memory joined on it, their memories' keys and values computed once,
without and with the base's own answer, and 4 and 10 separate models one after the other, where memory holds them. The
tasks are random: none of these times depends on their values.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from vitexp import build
from vitexp.benchmark.model import class_loss, native
from vitexp.benchmark.place import device_of, place_name, waiting
from vitexp.benchmark.report import TIMES, Report, milliseconds
from vitexp.benchmark.timing import alternate
from vitexp.benchmark.work import forward, training_step
from vitexp.config.command import Command
from vitexp.config.compose import compose
from vitexp.machine.memory import free_on
from vitexp.run.microbatch import keeping

_TRAINED = ("head", "memory_masked", "memory", "full")
_TASKS = (1, 4, 10)
_SEPARATE = (4, 10)


def time_regimes(command: Command) -> Report:
    """Time `model=` under the regimes, and joined tasks on it; ratios are times over that of `head`, and of the base.

    Raises:
        ConfigError: a model without a class token, or an attention without a map.
    """
    cfg = native(command)
    device = device_of(cfg)
    shape = (cfg.data.batch_size, cfg.data.channels, cfg.data.image_size, cfg.data.image_size)
    images, labels = torch.randn(shape, device=device), torch.arange(shape[0], device=device) % cfg.data.num_classes
    models = {name: _under(cfg, name).to(device) for name in _TRAINED}
    losses = {name: partial(class_loss, model, images, labels) for name, model in models.items()}
    steps = {name: training_step(cfg, model, losses[name]) for name, model in models.items()}
    kept = {name: [_kept_bytes(model, losses[name]), *_peak(steps[name], device)] for name, model in models.items()}
    rows: list[tuple[object, ...]] = []
    ratios: dict[str, float] = {}
    wait = waiting(device)
    for name, timing in alternate(steps, repeats=cfg.benchmark.repeats, wait=wait).items():
        trains, _ = build.count_parameters(models[name])
        ratios[f"step of {name} over head"] = 1 / timing.ratio
        rows.append(
            ("training step", name, f"{trains:,}", *milliseconds(timing), round(1 / timing.ratio, 3), *kept[name])
        )
    empty = [None] * len(kept["head"])
    del models, steps, losses
    forwards, counts = _forwards(cfg, device, images)
    for name, timing in alternate(forwards, repeats=cfg.benchmark.repeats, wait=wait).items():
        ratios[f"{name} over base"] = 1 / timing.ratio
        rows.append(("forward", name, counts[name], *milliseconds(timing), round(1 / timing.ratio, 3), *empty))
    memory = ("MB kept", "MB at the peak")[: len(empty)]
    columns = ("", "", "parameters", *TIMES, "× head, × base", *memory)
    size = cfg.data.image_size
    title = f"{cfg.chosen.model}, {size} × {size}, batch {shape[0]}, {place_name(cfg)}; trained or added parameters"
    if left := [str(count) for count in _SEPARATE if f"{count} separate models" not in forwards]:
        title += f"; no memory for {' or '.join(left)} separate models"
    return Report(title, columns, rows, ratios)


def _under(cfg: DictConfig, regime: str) -> nn.Module:
    """The model of a configuration under another regime."""
    other = copy.deepcopy(cfg)
    other.regime = compose([f"regime={regime}"]).regime
    return build.build_model(other)


def _forwards(
    cfg: DictConfig, device: torch.device, images: Tensor
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """The contenders at inference, and how many parameters each adds to one base."""
    single: Any = _under(cfg, "memory_masked")
    base = single.base.eval().to(device)
    work: dict[str, Callable[[], object]] = {"base": forward(cfg, base, partial(base, images))}
    counts = {"base": "0"}
    for count in _TASKS:
        joined = _joined(single, count).to(device)
        build.switches(cfg, joined, inference=True)
        name, added = f"{count} task{'s' if count > 1 else ''}", sum(p.numel() for p in joined.tasks.parameters())
        for label, base_too in ((f"{name} joined", False), (f"{name} and the base's", True)):
            work[label] = forward(cfg, joined, partial(joined.answers, images, base=base_too))
            counts[label] = f"{added:,}"
    whole = sum(p.numel() for p in base.parameters())
    separate: list[Any] = []
    for count in _SEPARATE:
        if (count - len(separate)) * whole * base.norm.weight.element_size() > free_on(device) // 2:
            continue  # swapping would be timed
        separate += [copy.deepcopy(base) for _ in range(count - len(separate))]
        work[f"{count} separate models"] = forward(cfg, base, partial(_one_by_one, separate[:count], images))
        counts[f"{count} separate models"] = f"{(count - 1) * whole:,}"
    return work, counts


def _one_by_one(models: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    return [model(images) for model in models]


def _joined(single: Any, count: int) -> Any:
    """The base of a masked model with `count` copies of its task."""
    tasks = [copy.deepcopy(single.tasks[0]) for _ in range(count)]
    names = [str(index) for index in range(count)]
    joined = type(single)(
        single.base, tasks=tasks, names=names, reads=[[] for _ in tasks], memory_norm=single.memory_norm
    )
    return joined.eval()


def _peak(step: Callable[[], object], device: torch.device) -> list[float]:
    """Megabytes of a GPU that a step takes at its peak beyond what was there before; elsewhere nothing tells."""
    if device.type != "cuda":
        return []
    step()  # the optimizer's state stays from the first step on
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    return [round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)]


def _kept_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> float:
    """Megabytes that a forward pass in training keeps for the backward pass, parameters not counted."""
    model.train()
    with keeping(model.parameters()) as kept:
        value = loss()
    del value
    return round(kept.num_bytes / 1e6, 1)
