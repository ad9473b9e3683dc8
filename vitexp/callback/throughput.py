"""The padding of packed sequences and the speed of images of many sizes, one row an epoch."""

from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from vitexp.batch import PackedImages


class Throughput(Callback):
    """Log train/padding_rate, train/tokens, train/shrunk (images longer than a sequence), and two rates.

    train/tokens counts from the start of the run: the axis on which runs of different resolutions compare; of images
    that are not packed it is train/pixels. Rates are over the time of training since the epoch began or was resumed. In
    several processes the counts are of all.
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
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        images = batch[0]
        packed = isinstance(images, PackedImages)
        tokens = images.num_tokens if packed else images.shape[0] * images.shape[-2] * images.shape[-1]
        self._tokens, self._total = self._tokens + tokens, self._total + tokens
        self._cells += images.owner.numel() if packed else 0
        self._session[0] += tokens
        self._session[1] += len(images)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row."""
        seconds = max(perf_counter() - self._started, 1e-9)
        tokens, cells, total, *session = self._over_processes(pl_module)
        order: Any = getattr(trainer.train_dataloader, "sampler", None)
        unit = "tokens" if cells else "pixels"
        row = {f"train/{unit}": total, f"train/{unit}_per_s": session[0] / seconds}
        row["train/images_per_s"] = session[1] / seconds
        if cells:
            row["train/padding_rate"] = 1 - tokens / cells
        if hasattr(order, "plan"):
            row["train/shrunk"] = float(order.plan(trainer.current_epoch)[0].shrunk)
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **row}, step=trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The open counts of the epoch and those of the run."""
        checkpoint["throughput"] = [int(count) for count in self._over_processes(pl_module)[:3]]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the open counts; the first process has those of all."""
        if trainer.is_global_zero:
            self._tokens, self._cells, self._total = checkpoint["throughput"]

    def _over_processes(self, pl_module: LightningModule) -> list[float]:
        counts = torch.tensor(
            [self._tokens, self._cells, self._total, *self._session], dtype=torch.float64, device=pl_module.device
        )
        total: Any = pl_module.trainer.strategy.reduce(counts, reduce_op="sum")
        return list(total.tolist())

    def _start(self) -> None:
        self._started, self._session = perf_counter(), [0, 0]
