"""Exponential moving average of the weights, validated and saved beside the raw ones.

torch's AveragedModel holds the copy. Validation runs the copy itself; the training weights are never swapped out, so
an exception inside validation cannot leave the wrong ones in the checkpoint (reliability.md, F47).
"""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vitexp.checkpoint.adapter import trained_names, without_base


class Average(Callback):
    """Update after every optimizer step; `decay` is the share of the old average kept."""

    def __init__(self, *, decay: float) -> None:
        self.decay = decay
        self.average: AveragedModel | None = None
        self._updates = 0
        self._restored: dict[str, Any] | None = None
        self._names: frozenset[str] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model before the optimizer sees it."""
        if stage != "fit" or self.average is not None:
            return
        model: Any = pl_module.model
        self._names = trained_names(model)
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
        self.average.requires_grad_(False).eval()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the copy to the device of the model, and take the state of a resumed run."""
        assert self.average is not None
        self.average.to(pl_module.device)
        if self._restored is not None:
            self.average.load_state_dict(self._restored, strict=self._names is None)
            self._restored = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Average once a step, not once a micro-batch."""
        if trainer.global_step > self._updates and self.average is not None:
            model: Any = pl_module.model
            self.average.update_parameters(model)
            self._updates = trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the copy."""
        copy: Any = self.average.module if self.average is not None else None
        pl_module.evaluated = copy

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the copy."""
        self.on_validation_start(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The average, without what a regime keeps frozen, and how many steps it has seen."""
        average = self.average.state_dict() if self.average is not None else {}
        average = without_base(average, self._names, prefix="module.")
        return {"average": average, "updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a checkpoint held until the device is known."""
        self._restored, self._updates = state_dict["average"], state_dict["updates"]
