"""The header of a run: what is about to happen, in numbers that can be checked before it costs hours."""

import re

import torch
from pytorch_lightning import Trainer
from torch import nn

from vitexp import build
from vitexp.config.schema import ALIASES
from vitexp.contract import SupportsPacks
from vitexp.data.base import ImageData
from vitexp.optim.schedule import warm_steps
from vitexp.report.screen import show
from vitexp.report.table import header
from vitexp.run.folder import Run
from vitexp.run.training import Training


def print_header(run: Run, training: Training) -> None:
    """Run, device, precision, parameters, GMACs, data sizes, effective batch, schedule, what was overridden."""
    task, data, trainer, settings = training.task, training.data, training.trainer, training.settings
    steps, epochs = data.steps_per_epoch, trainer.max_epochs or 0
    total = steps * epochs
    shape = (data.channels, *_image_shape(task.model, data.image_size))
    name, warm = settings.chosen["schedule"], warm_steps(settings.warmup, total, steps)
    text = run.folder.text("overrides.txt").splitlines() if run.folder.has("overrides.txt") else []
    shorts = {key: short for short, key in ALIASES.items()}
    asked = [f"{line} ({shorts[key]}=)" if (key := line.partition("=")[0]) in shorts else line for line in text]
    show(
        header(
            name=run.name,
            folder=str(run.path),
            device=device_of(trainer),
            precision=str(trainer.precision),
            parameters=build.count_parameters(task.model),
            macs=_macs(task.model, shape),
            sizes={"train": data.train_size, "val": data.val_size, "test": data.test_size},
            batch=_batch(data.batches.size, trainer) if not data.about_batches() else _about(data, task.model, trainer),
            schedule=f"{name}, peak {settings.lr:g}, {warm:,} of {total:,} steps warm-up, {epochs} epochs",
            settings=asked,
            trains=trained_parts(task.model),
        ),
        quiet=False,
    )


def _macs(model: nn.Module, shape: tuple[int, int, int]) -> int | None:
    """Multiply-accumulates of an image; None where a model looks at values, which the meta device has not."""
    try:
        return build.count_macs(model, shape)
    except (NotImplementedError, RuntimeError):
        return None


def _image_shape(model: nn.Module, size: int) -> tuple[int, int]:
    """The shape of the image whose cost is stated: whole patches where a model takes images of any size by patches."""
    if not isinstance(model, SupportsPacks):
        return size, size
    return model.grid[0] * model.strides[0], model.grid[1] * model.strides[0]


def _about(data: ImageData, model: nn.Module, trainer: Trainer) -> str:
    """Batches of images of many sizes, and by what kernel packed ones attend."""
    text = data.about_batches()
    if not isinstance(model, SupportsPacks):
        return text
    half = "mixed" in str(trainer.precision) or str(trainer.precision).startswith("16")
    return f"{text}; attention kernel: {model.kernel_for(trainer.strategy.root_device, half=half)}"


def trained_parts(model: nn.Module) -> str:
    """`blocks.*.memory 46,080, head 76,900 (0.14 %)`: what trains, layers as one; empty where everything does."""
    trainable, whole = build.count_parameters(model)
    if trainable == whole:
        return ""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = re.sub(r"\.(weight|bias)$", "", re.sub(r"\.\d+\.", ".*.", name))
            counts[part] = counts.get(part, 0) + parameter.numel()
    listed = [f"{part} {count:,}" for part, count in counts.items()]
    more = [f"and {len(listed) - 6} more"] if len(listed) > 6 else []
    return f"{', '.join([*listed[:6], *more])} ({100 * trainable / whole:.3g} %)"


def device_of(trainer: Trainer) -> str:
    """`1 × NVIDIA H100`, or `cpu (2 threads)`."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return f"{trainer.world_size} × {torch.cuda.get_device_name(device)}"
    count = f"{trainer.world_size} processes, " if trainer.world_size > 1 else ""
    threads = torch.get_num_threads()
    return f"{device.type} ({count}{threads} thread{'s' if threads > 1 else ''})"


def _batch(size: int, trainer: Trainer) -> str:
    accumulate, world = trainer.accumulate_grad_batches, trainer.world_size
    if accumulate * world == 1:
        return str(size)
    return f"{size} = {size // (accumulate * world)} × {world} devices × {accumulate} accumulated"
