"""How full packed sequences are and how fast tokens and images go through, one row an epoch."""

from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from vitexp.packed import PackedImages


class Throughput(Callback):
    """Log train/padding_rate, train/tokens, train/shrunk (images longer than a sequence), and two rates.

    train/tokens counts from the start of the run: the axis on which runs of different resolutions compare. Rates are
    over the time of training since the epoch began or was resumed. In several processes the counts are of all.
    """

    def __init__(self) -> None:
        self._tokens = self._cells = self._total = 0
        self._started = 0.0
        self._session = [0, 0]  # tokens and images since the clock was started

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that goes on inside an epoch has no start of it."""
        self._start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._tokens = self._cells = 0
        self._start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        images = batch[0]
        if isinstance(images, PackedImages):
            tokens, cells = images.num_tokens, images.owner.numel()
        else:
            model: Any = pl_module.model
            patch = model.strides[0] if hasattr(model, "strides") else 1
            tokens = cells = len(images) * (images.shape[-2] // patch) * (images.shape[-1] // patch)
        self._tokens, self._cells, self._total = self._tokens + tokens, self._cells + cells, self._total + tokens
        self._session[0] += tokens
        self._session[1] += len(images)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row."""
        seconds = max(perf_counter() - self._started, 1e-9)
        counts = torch.tensor(
            [self._tokens, self._cells, self._total, *self._session], dtype=torch.float64, device=pl_module.device
        )
        gathered: Any = pl_module.all_gather(counts)
        tokens, cells, total, *session = gathered.reshape(-1, 5).sum(0).tolist()
        order: Any = getattr(trainer.train_dataloader, "sampler", None)
        row = {"train/tokens": total}
        if cells:
            row["train/padding_rate"] = 1 - tokens / cells
        if hasattr(order, "plan"):
            row["train/shrunk"] = float(order.plan(trainer.current_epoch)[0].shrunk)
        row |= {"train/tokens_per_s": session[0] / seconds, "train/images_per_s": session[1] / seconds}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **row}, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The open counts of the epoch and those of the run."""
        return {"tokens": self._tokens, "cells": self._cells, "total": self._total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the open counts."""
        self._tokens, self._cells, self._total = (state_dict[key] for key in ("tokens", "cells", "total"))

    def _start(self) -> None:
        self._started, self._session = perf_counter(), [0, 0]
