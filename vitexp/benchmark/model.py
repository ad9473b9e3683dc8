"""`benchmark what=model`: seconds of a forward and of a training step beside timm's same model.

Three contenders take turns on the same images: timm's model in a bare loop, ours in the same bare loop (`plain`), and
ours as `vitexp evaluate` and `vitexp train` run it, with memory layout, folded norms and compilation. Our weights are
loaded into timm's model first and the outputs compared, and nothing is dropped in training, for a time means nothing
unless the work is the same, and the time of a kernel depends on the numbers it meets.
"""

import copy
from collections.abc import Mapping
from functools import partial

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp import build
from vitexp.attention.base import DenseAttention
from vitexp.benchmark.detector import time_detector
from vitexp.benchmark.place import device_of, place_name, waiting
from vitexp.benchmark.report import TIMES, Report, milliseconds
from vitexp.benchmark.timing import alternate
from vitexp.benchmark.work import forward, training_step
from vitexp.checkpoint.load import export_names
from vitexp.config.command import Command
from vitexp.errors import ConfigError, require_extra
from vitexp.layer.drop_path import DropPath

# Outputs may differ by so much of their largest value, in float32.
TOLERANCE = 1e-4


def time_model(command: Command) -> Report:
    """Time `model=` at its native size with 1,000 classes, or as `data=`, `size=` and `bs=` say.

    Raises:
        ConfigError: timm is not installed, has no such model, or its model is another one.
    """
    if command.cfg.chosen.task == "detect":
        return time_detector(command, without_drops=without_drops)
    cfg = native(command)
    device, title = device_of(cfg), _title(cfg)
    torch.manual_seed(cfg.seed)
    ours = without_drops(awake(build.build_model(cfg)))
    shape = (cfg.data.batch_size, cfg.data.channels, cfg.data.image_size, cfg.data.image_size)
    images, labels = torch.randn(shape, device=device), torch.arange(shape[0], device=device) % cfg.data.num_classes
    models = {**_peer(cfg, ours), "plain": copy.deepcopy(ours), "vitexp": ours}
    models = {name: model.to(device) for name, model in models.items()}
    require_equal(models, images, cfg)
    rows: list[tuple[object, ...]] = []
    ratios: dict[str, float] = {}
    # The forward first, as in a process that only evaluates: after training steps the heap is large, and memory
    # that stays mapped hides what a forward with many large intermediates costs. Folding norms takes a copy.
    modes = (("forward", True), ("training step", False)) if trains(ours, batch=shape[0]) else (("forward", True),)
    for what, inference in modes:
        timed = {**models, "vitexp": copy.deepcopy(ours)}
        build.switches(cfg, timed["vitexp"], inference=inference)
        require_equal(timed, images, cfg)
        work = {
            name: forward(cfg, model, partial(model, images))
            if inference
            else training_step(cfg, model, partial(class_loss, model, images, labels))
            for name, model in timed.items()
        }
        timings = alternate(work, repeats=cfg.benchmark.repeats, wait=waiting(device))
        for name, timing in timings.items():
            speed = round(shape[0] / timing.seconds, 1)
            rows.append((what, name, *milliseconds(timing), speed, round(timing.ratio, 2)))
        ratios[what] = timings["vitexp"].ratio
        ratios[f"{what} over plain"] = timings["plain"].seconds / timings["vitexp"].seconds
    first = next(iter(models))
    return Report(title, ("", "", *TIMES, "img/s", f"× {first}"), rows, ratios)


def trains(model: nn.Module, *, batch: int) -> bool:
    """Whether a training step of `batch` images exists: a batch norm of vectors has no statistics of a single one."""
    return batch > 1 or not any(isinstance(module, nn.BatchNorm1d) for module in model.modules())


def native(command: Command) -> DictConfig:
    """The configuration with three channels, the native size and 1,000 classes, unless the command chose its data."""
    cfg = copy.deepcopy(command.cfg)
    given = {text.partition("=")[0] for text in command.overrides}
    if cfg.reference.image_size is None or "data" in given:
        return cfg
    usual = {
        "num_classes": 1000,
        "channels": 3,
        "image_size": cfg.reference.image_size,
        "batch_size": cfg.benchmark.batch_size,
    }
    for key, value in usual.items():
        if f"data.{key}" not in given:
            cfg.data[key] = value
    return cfg


@torch.no_grad()
def awake(model: nn.Module) -> nn.Module:
    """Norms that do something: statistics off 0 and 1, gains that start at zero set to one; so all layers count."""
    for module in model.modules():
        gain = dict(module.named_parameters(recurse=False)).get("weight")
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(gain, Tensor) and gain.ndim == 1 and not gain.any():
            gain.fill_(1.0)
    return model


def without_drops(model: nn.Module) -> nn.Module:
    """No dropout and no dropped paths: codes differ in their defaults, and a branch that is dropped costs no time."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.rate = 0.0
        elif isinstance(module, DenseAttention):
            module.dropout_rate = 0.0
    return model


def require_equal(models: Mapping[str, nn.Module], images: Tensor, cfg: DictConfig) -> None:
    """Raise ConfigError unless all models give the same outputs in evaluation, in float32."""
    with torch.inference_mode():
        outputs = {name: model.eval()(images) for name, model in models.items()}
    first, expected = next(iter(outputs.items()))
    for name, output in outputs.items():
        error = float((output - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        if not error <= TOLERANCE:
            raise ConfigError(
                f"model={cfg.chosen.model}: {name} and {first} differ by {error:.1e} of the largest output, more than"
                f" {TOLERANCE:g}, so their times cannot be compared; name timm's same model with benchmark.peer=..."
            )


def _peer(cfg: DictConfig, ours: nn.Module) -> dict[str, nn.Module]:
    """Timm's model of the same weights, under `timm`; nothing with `against=none`."""
    if cfg.benchmark.against == "none":
        return {}
    if cfg.benchmark.against == "hf":
        raise ConfigError("benchmark against=hf is for detectors, such as model=detr_r50; use against=timm or none")
    name = cfg.benchmark.peer or cfg.reference.timm
    if name is None:
        raise ConfigError(
            f"model={cfg.chosen.model} has no equal in timm that its file names; give benchmark.peer=NAME, or use"
            " against=none to compare with a bare loop only"
        )
    require_extra("timm", "timm", asked="benchmark against=timm")
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"benchmark.peer={name} is no model of timm; use one of timm.list_models()")
    size = {} if cfg.data.image_size == cfg.reference.image_size else {"img_size": cfg.data.image_size}
    try:
        peer: nn.Module = timm.create_model(name, num_classes=cfg.data.num_classes, in_chans=cfg.data.channels, **size)
    except TypeError:  # a convolutional model takes any size without being told
        peer = timm.create_model(name, num_classes=cfg.data.num_classes, in_chans=cfg.data.channels)
    try:
        peer.load_state_dict(export_names(ours))
    except RuntimeError as error:
        different = str(error).splitlines()[1].strip() if len(str(error).splitlines()) > 1 else str(error)
        raise ConfigError(
            f"timm's {name} is not model={cfg.chosen.model} at size={cfg.data.image_size}: {different}; name the same"
            " model with benchmark.peer=..., or use against=none"
        ) from None
    return {"timm": peer}


def class_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the logits (B, K)."""
    return F.cross_entropy(model(images), labels)


def _title(cfg: DictConfig) -> str:
    size, compiled = cfg.data.image_size, ", vitexp compiled" if cfg.compile else ""
    return f"{cfg.chosen.model}, {size} × {size}, batch {cfg.data.batch_size}, {place_name(cfg)}{compiled}"
