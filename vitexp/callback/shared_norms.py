"""Batch norms of several processes: their running statistics become the mean over the processes.

Each process sees its own images, so without this each would validate a slightly different model, and the one that is
saved would be the first one's (timm's `--dist-bn reduce` is the same).
"""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitexp.callback.average import Average


class SharedNorms(Callback):
    """Average before each validation, and at the end of an epoch without one; the averaged weights' norms, too."""

    def __init__(self, *, average: Average | None = None) -> None:
        self.average = average
        self._epoch = -1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average the norms before a validation, so that the weights validated are those saved."""
        self._share(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch that was not validated."""
        self._share(trainer, pl_module)

    @torch.no_grad()
    def _share(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1 or self._epoch == trainer.current_epoch:
            return
        self._epoch = trainer.current_epoch
        model: Any = pl_module.model
        copy = self.average.average if self.average is not None else None
        for part in (model, copy):
            for buffer in statistics(part) if part is not None else []:
                buffer.copy_(trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))


def statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances of a model's batch norms."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    return [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
