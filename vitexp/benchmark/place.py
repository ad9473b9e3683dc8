"""The device and the arithmetic of a benchmark: as Lightning would choose for the same command."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from omegaconf import DictConfig

from vitexp.build import device_of, lightning_precision
from vitexp.errors import ConfigError


def waiting(device: torch.device) -> Callable[[], object]:
    """A function that returns once the device has done all its work."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def precision_of(cfg: DictConfig) -> str:
    """Lightning's word for the arithmetic.

    Raises:
        ConfigError: one that is not a matter of autocasting.
    """
    word: str = lightning_precision(cfg.precision, "cpu" if device_of(cfg).type == "cpu" else "auto")
    if word.startswith("64"):
        raise ConfigError("benchmark does not time precision=64; use 32, bf16 or 16")
    return word


def autocast(cfg: DictConfig) -> AbstractContextManager[Any]:
    """The context that Lightning puts around the model for `precision=`."""
    word = precision_of(cfg)
    if not word.endswith("-mixed"):
        return nullcontext()
    return torch.autocast(device_of(cfg).type, dtype=torch.bfloat16 if word.startswith("bf16") else torch.float16)


def place_name(cfg: DictConfig) -> str:
    """Device and arithmetic, for a title."""
    device = device_of(cfg)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision_of(cfg)}"
    count = torch.get_num_threads()
    return f"CPU with {count} thread{'s' if count > 1 else ''}, {precision_of(cfg)}"
