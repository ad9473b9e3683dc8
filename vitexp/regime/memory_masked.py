"""Learnable memory that leaves the base as it is: one task of `vitexp.regime.masked` (Sandler et al. 2022, 3.2)."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from vitexp.layer.head import zero_linear
from vitexp.model.encoder import TokenEncoder
from vitexp.regime.base import require_init, require_tokens, set_rates
from vitexp.regime.masked import MaskedMemory, TaskMemory
from vitexp.regime.memory import new_memory


def memory_masked(
    model: nn.Module,
    *,
    num_classes: int,
    num_tokens: int,
    std: float,
    class_token: str,
    memory_norm: bool,
    lr_scale: Mapping[str, float],
    weight_decay: Mapping[str, float | None],
    cache: bool = False,
) -> nn.Module:
    """A new class token, its head and `num_tokens` memory tokens a layer train; the base's outputs stay, to the bit.

    The arguments are those of `vitexp.regime.memory.memory`; `cache` is the run's, which then embeds the images once:
    the model takes both, images and what `embed_frozen` made of them.
    """
    encoder = require_tokens(model, regime="memory_masked", mask=True)
    task = new_task(encoder, num_classes=num_classes, num_tokens=num_tokens, std=std, class_token=class_token)
    masked = MaskedMemory(encoder, tasks=[task], names=["0"], reads=[[]], memory_norm=memory_norm)
    set_rates(masked, last_task_parts(masked), lr_scale=lr_scale, weight_decay=weight_decay)
    return masked


def new_task(encoder: TokenEncoder, *, num_classes: int, num_tokens: int, std: float, class_token: str) -> TaskMemory:
    """Starting values of a task: memory from N(0, std), the class token a copy or random, the head zero."""
    require_init(class_token)
    start = cast(nn.Parameter, encoder.class_token).detach().clone()
    return TaskMemory(
        class_token=nn.init.normal_(torch.empty_like(start), std=std) if class_token == "random" else start,
        memory=nn.init.normal_(new_memory(encoder, num_tokens), std=std),
        head=zero_linear(encoder.head, num_classes),
    )


def last_task_parts(masked: MaskedMemory) -> dict[str, list[str]]:
    """The parts of the task that trains, with the prefixes of their parameters' names."""
    last = f"tasks.{len(masked.tasks) - 1}."
    return {part: [f"{last}{part}"] for part in ("head", "class_token", "memory")}
