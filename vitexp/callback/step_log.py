"""One row of metrics every N optimizer steps, straight to the loggers.

Lightning's `self.log` costs more than a small model's step; here tensors are summed on the device and read only when
a row is due.
"""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class StepLog(Callback):
    """Write train/loss_step, lr and gradient norm every `every` steps.

    train/loss_step is the mean over the micro-batches since the last row, and over the processes.
    """

    def __init__(self, *, every: int) -> None:
        self.every = every
        self._sum: Any = 0.0
        self._count = 0
        self._logged = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Add the loss; at every N-th step write the row."""
        # Not the step's output: Lightning divides that by the number of accumulated micro-batches.
        self._sum = self._sum + pl_module.last_loss
        self._count += 1
        if trainer.global_step % self.every == 0:
            self._write(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last row of an epoch, however short."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if step == self._logged or not self._count:
            return
        row = {
            "train/loss_step": self._over_processes(trainer) / self._count,
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
        }
        norm: Any = getattr(pl_module, "grad_norm", None)
        if norm is not None:
            row["train/grad_norm"] = float(norm)
        self._sum, self._count, self._logged = 0.0, 0, step
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **row}, step=step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The open sum, so that the row after a resume is the row of the uninterrupted run."""
        open_row = {"sum": self._over_processes(trainer), "count": self._count, "logged": self._logged}
        checkpoint["open_row"] = open_row

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the open sum."""
        open_row = checkpoint["open_row"]
        self._sum, self._count, self._logged = open_row["sum"], open_row["count"], open_row["logged"]

    def _over_processes(self, trainer: Trainer) -> float:
        """The mean of the processes' sums."""
        return float(trainer.strategy.reduce(self._sum, reduce_op="mean"))
