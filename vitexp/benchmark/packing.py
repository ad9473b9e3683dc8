"""`benchmark what=packing`: images of many sizes packed by each kernel, beside padding to the longest and one size.

The images of one training batch, as the run's own loader draws them, go through one NaViT: each in a sequence of its
own padded to the longest of them (what a batch of images of many sizes is without packing), packed, and all resized to
`size=`. Logits of the first two are compared before anything is timed. Data loading is not part of the time.
"""

from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp import build
from vitexp.batch import PackedImages, pack_images
from vitexp.benchmark.place import autocast, device_of, place_name, waiting
from vitexp.benchmark.report import TIMES, Report, milliseconds
from vitexp.benchmark.timing import alternate
from vitexp.benchmark.work import forward, training_step
from vitexp.config.command import Command
from vitexp.config.compose import compose
from vitexp.data.sampling import Packed
from vitexp.errors import ConfigError

# Without `model=`: a NaViT, and made-up images at ImageNet's size.
_USUAL = ("model=navit_ti16", "data=fake", "data.image_size=224", "data.sizes=[64,1,1]", "data.batch_size=8")
_KERNELS = {"cpu": ("mask", "split", "jagged"), "cuda": ("mask", "flex", "varlen")}
_TOLERANCE = 1e-2
_SHORT = "padded to the longest"


def time_packing(command: Command) -> Report:
    """Time a training step and a forward of the same images in each form.

    Raises:
        ConfigError: a model or data that are not packed, forms that disagree.
    """
    chosen = any(text.startswith("model=") for text in command.overrides)
    cfg = command.cfg if chosen else compose([*_USUAL, *command.overrides])
    data = build.build_data(cfg)
    if not isinstance(data.sampling, Packed):
        raise ConfigError(
            f"benchmark what=packing packs images, and model={cfg.chosen.model} takes them whole; use model=navit_ti16"
        )
    model: Any = build.build_model(cfg).to(device_of(cfg))
    packed, labels = _batch(data)
    packed, labels = packed.to(device_of(cfg)), labels.to(device_of(cfg))
    square = torch.randn(len(packed), data.channels, *_whole(model), device=device_of(cfg))
    alone = _alone(packed)
    forms: dict[str, tuple[str, Any]] = {_SHORT: ("mask", alone)}
    for kernel in _KERNELS.get(device_of(cfg).type, ("mask",)):
        if _runs(cfg, model, kernel, packed):
            forms[f"packed, kernel {kernel}"] = (kernel, packed)
    forms[f"one size, {square.shape[-2]} × {square.shape[-1]}"] = ("mask", square)
    _compare(cfg, model, forms)
    rows, ratios = [], {}
    for kind in ("training step", "forward"):
        contenders = {
            name: forward(cfg, model, partial(_logits, cfg, model, *form))
            if kind == "forward"
            else training_step(cfg, model, partial(_loss, cfg, model, *form, labels))
            for name, form in forms.items()
        }
        timings = alternate(contenders, repeats=cfg.benchmark.repeats, wait=waiting(device_of(cfg)))
        for name, timing in timings.items():
            images = forms[name][1]
            tokens, padding = _tokens(images, model)
            pace = (round(len(packed) / timing.seconds), round(tokens / timing.seconds))
            rows.append((kind, name, tokens, padding, *milliseconds(timing), *pace, round(timing.ratio, 2)))
            ratios[f"{kind}: {name}"] = timing.ratio
    columns = ("", f"{len(packed)} images", "tokens", "padding", *TIMES, "images/s", "tokens/s", f"× {_SHORT}")
    title = f"{cfg.chosen.model}, {cfg.chosen.data}, sequences of {packed.owner.shape[1]} tokens, {place_name(cfg)}"
    return Report(title, columns, rows, ratios)


def _batch(data: Any) -> tuple[PackedImages, Tensor]:
    """The first training batch; of a set that can only be tested, one drawn in the same way."""
    split = "train" if data.train_size else "test"
    batch: tuple[PackedImages, Tensor] = next(iter(data.loader(split, training=True)))
    return batch


def _whole(model: Any) -> tuple[int, int]:
    return model.grid[0] * model.strides[0], model.grid[1] * model.strides[0]


def _alone(packed: PackedImages) -> PackedImages:
    """Each image in a sequence of its own, padded to the longest."""
    rows, lengths = [], [length for row in packed.lengths for length in row]
    for row, counts in enumerate(packed.lengths):
        start = 0
        for count in counts:
            here = (row, slice(start, start + count))
            grid = packed.grids[row, start].tolist()
            rows.append([(packed.patches[here].cpu(), packed.places[here].cpu(), (grid[0], grid[1]))])
            start += count
    padded = pack_images(rows, length=max(lengths), patch_size=packed.patch_size)
    return padded.to(packed.patches.device)


def _tokens(images: PackedImages | Tensor, model: Any) -> tuple[int, float]:
    """Tokens of images, and the share of padding among all."""
    if isinstance(images, PackedImages):
        return images.num_tokens, round(images.padding_rate, 3)
    return len(images) * model.grid[0] * model.grid[1], 0.0


def _runs(cfg: DictConfig, model: Any, kernel: str, images: PackedImages) -> bool:
    """Whether a kernel works here, in training."""
    try:
        _logits(cfg, model, kernel, images)
    except ConfigError:
        return False
    return True


def _logits(cfg: DictConfig, model: Any, kernel: str, images: Any) -> Tensor:
    model.kernel = kernel
    with autocast(cfg):
        logits: Tensor = model(images)
    return logits


@torch.no_grad()
def _compare(cfg: DictConfig, model: nn.Module, forms: dict[str, tuple[str, Any]]) -> None:
    expected = _logits(cfg, model.eval(), *forms[_SHORT]).float()
    for name, (kernel, images) in forms.items():
        if isinstance(images, PackedImages):
            off = (_logits(cfg, model, kernel, images).float() - expected).abs().max() / expected.abs().max()
            if off > _TOLERANCE:
                raise ConfigError(f"{name} gives other logits than {_SHORT}, off by {off:.2g}; use model.kernel=mask")


def _loss(cfg: DictConfig, model: nn.Module, kernel: str, images: Any, labels: Tensor) -> Tensor:
    return F.cross_entropy(_logits(cfg, model, kernel, images), labels)
