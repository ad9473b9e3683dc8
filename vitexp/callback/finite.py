"""A loss that is not finite ends the run at once, with the last good checkpoint kept."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from vitexp.errors import DivergedError


class Finite(Callback):
    """Check each step's loss, and its gradient norm where it is measured and no loss scaler is at work.

    On the CPU the check is a look at a number. On a GPU it would wait for the device, so there the first bad step is
    noted on the device and looked at every `every` steps and before each checkpoint (`check`).
    """

    def __init__(self, *, every: int) -> None:
        self.every = every
        self._first_bad: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        """Note the step if its loss or gradient is not finite."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        value = loss.detach()
        norm = getattr(pl_module, "grad_norm", None)
        if norm is not None and trainer.scaler is None:
            value = value + norm
        step = trainer.global_step
        if value.device.type == "cpu":
            if not math.isfinite(value.item()):
                _stop(step, loss.item(), pl_module)
            return
        bad = torch.where(torch.isfinite(value), torch.inf, float(step))
        self._first_bad = bad if self._first_bad is None else torch.minimum(self._first_bad, bad)
        if step % self.every == 0:
            self.check(pl_module)

    def check(self, pl_module: LightningModule) -> None:
        """Raise DivergedError if a step since the last look was bad."""
        if self._first_bad is None:
            return
        first, self._first_bad = self._first_bad.item(), None
        if math.isfinite(first):
            _stop(int(first), math.nan, pl_module)


def _stop(step: int, loss: float, pl_module: LightningModule) -> None:
    rate = pl_module.trainer.optimizers[0].param_groups[0]["lr"]
    what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not finite"
    raise DivergedError(
        f"diverged at step {step}: {what} (learning rate {rate:.3g}); the last good checkpoint is kept;"
        " lower lr, lengthen schedule.warmup, or set trainer.clip"
    )
