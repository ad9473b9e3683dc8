"""The two units of work that are timed: a forward pass and a training step."""

from collections.abc import Callable

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from vitexp import build
from vitexp.benchmark.place import autocast


def forward(cfg: DictConfig, model: nn.Module, call: Callable[[], object]) -> Callable[[], object]:
    """`call` with the model in eval mode, without gradients, in the arithmetic of `precision=`."""

    def work() -> object:
        model.eval()
        with torch.inference_mode(), autocast(cfg):
            return call()

    return work


def training_step(cfg: DictConfig, model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], object]:
    """The loss, its gradients and a step of `optimizer=` on what trains, with the model in training mode."""
    optimizer = build.make(cfg.optimizer)([p for p in model.parameters() if p.requires_grad])

    def work() -> None:
        model.train()
        optimizer.zero_grad()
        with autocast(cfg):
            value = loss()
        value.backward()
        optimizer.step()

    return work
