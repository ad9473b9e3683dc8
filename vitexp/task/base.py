"""The base of every task, around its loss and its metrics: optimizer, clipping, epoch means, the log, resuming."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn


class Task(LightningModule):
    """Base of the tasks. A subclass says its `monitor`, its optimizer `groups`, and the names of its epoch means.

    Attributes:
        monitor: what chooses the best checkpoint, and whether more of it (+1) or less (-1) is better.
        means: names of the train metrics that `add_to_means` sums, in its order.
        last_loss: of the last micro-batch, detached.
        grad_norm: before clipping, where gradients are clipped.
    """

    monitor: ClassVar[tuple[str, int]]
    means: tuple[str, ...]

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Any],
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer, self.schedule = optimizer, schedule
        # A moving average of the weights, while it is what gets evaluated; a list so that it is no submodule.
        self._evaluated: list[nn.Module] = []
        self.last_loss: Tensor | None = None
        self.grad_norm: Tensor | None = None
        self._sums: Tensor | None = None

    @property
    def evaluated(self) -> nn.Module | None:
        """The model that validation and testing run instead of the trained one; None for the trained one."""
        return self._evaluated[0] if self._evaluated else None

    @evaluated.setter
    def evaluated(self, model: nn.Module | None) -> None:
        self._evaluated[:] = [] if model is None else [model]

    def __setattr__(self, name: str, value: Any) -> None:
        """Let `evaluated` reach its setter: torch would register a module as a part of this one before it does."""
        if name == "evaluated":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def groups(self, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""
        raise NotImplementedError

    @torch.no_grad()
    def add_to_means(self, values: Sequence[Tensor], count: int) -> None:
        """Add sums over the `count` images of a micro-batch to the epoch's, in the order of `means`."""
        sums = [value.detach().double() for value in values]
        row = torch.stack([*sums, torch.full_like(sums[0], count)])
        self._sums = row if self._sums is None else self._sums + row

    def on_train_epoch_start(self) -> None:
        """A new mean; not called when a run resumes inside an epoch, whose sums the checkpoint holds."""
        self._sums = None

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        if self._sums is None:
            return
        *sums, count = self._over_processes(self._sums)
        self.log_epoch({name: float(value / count) for name, value in zip(self.means, sums, strict=True)})

    def _over_processes(self, sums: Tensor) -> Any:
        return self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")  # which works in place

    def configure_optimizers(self) -> Any:
        """The optimizer over the groups, the schedule one value a step."""
        total = int(self.trainer.estimated_stepping_batches)
        optimizer, scheduler = self.optimization(total, max(1, total // int(self.trainer.max_epochs or 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimization(self, total_steps: int, steps_per_epoch: int) -> tuple[torch.optim.Optimizer, Any]:
        """A new optimizer and its schedule, for a run of so many steps."""
        options = getattr(self.optimizer, "keywords", {})
        optimizer = self.optimizer(self.groups(lr=options["lr"], weight_decay=options["weight_decay"]))
        return optimizer, self.schedule(optimizer, total_steps, steps_per_epoch)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the global norm, and keep the norm before clipping."""
        if gradient_clip_val:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            self.grad_norm = nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The open sums of the epoch, those of all processes."""
        checkpoint["epoch_sums"] = None if self._sums is None else self._over_processes(self._sums).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the open sums, each process with a part of them."""
        sums = checkpoint["epoch_sums"]
        self._sums = None if sums is None else sums.to(self.device) / self.trainer.world_size

    def log_epoch(self, values: dict[str, float]) -> None:
        """Send values to the loggers at the current step, and to `trainer.callback_metrics` for callbacks."""
        self.log_dict(values, logger=False)
        # A test belongs to the row of the last step, whose epoch is there; Lightning counts one further by then.
        epoch = {} if self.trainer.testing else {"epoch": self.current_epoch}
        if not self.trainer.sanity_checking:
            for logger in self.trainer.loggers:
                logger.log_metrics({**epoch, **values}, step=self.trainer.global_step)
