"""An analysis during training: its headline values every few epochs, its table and picture at the end."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import RenderableType

from vitexp.analysis.base import Analysis
from vitexp.analysis.write import summary_table, write
from vitexp.files.folder import Folder
from vitexp.logger.tracker import RunLogger


class Look(Callback):
    """Measure after every `every`-th epoch, 0 for the end only, and log `analysis/<name>/...` at the step.

    Measures the weights that validation runs (their moving average where one is kept), draws from no random state
    and leaves the model in its mode, so that the training is the same with and without it.

    Args:
        analysis: what measures.
        subject: from a model to what the analysis looks at.
        untrained: measures the untrained model; None to leave it out.
        folder: of the table and the picture.
        title: for the picture.
    """

    def __init__(
        self,
        *,
        analysis: Analysis,
        every: int,
        subject: Callable[[LightningModule], Any],
        untrained: Callable[[LightningModule], Any] | None,
        folder: Folder,
        title: str,
    ) -> None:
        self.analysis, self.every = analysis, every
        self.subject, self.untrained = subject, untrained
        self.folder, self.title = folder, title
        self.measured: dict[str, Any] = {}  # label -> what was measured at the end
        self._measured: Any = None
        self._measured_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look once at the model as it is: an analysis that means nothing for it says so before an epoch is spent."""
        if self.every and trainer.is_global_zero and trainer.global_step == 0:
            self._measure(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure if this epoch is one of those to measure after."""
        if self.every and (trainer.current_epoch + 1) % self.every == 0 and trainer.is_global_zero:
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last values, as table and picture, the picture also to the trackers."""
        if not trainer.is_global_zero:
            return
        if self._measured_at != trainer.global_step:
            self._measure(trainer, pl_module)
        self.measured = {"trained": self._measured}
        if self.untrained is not None:
            self.measured["untrained"] = self.untrained(pl_module)
        written = write(self.analysis, self.measured, self.folder, title=self.title)
        for picture in (path for path in written if path.suffix == ".png"):
            for logger in (logger for logger in trainer.loggers if isinstance(logger, RunLogger)):
                logger.log_picture(f"analysis/{self.analysis.name}", picture, trainer.global_step)

    def table(self) -> RenderableType:
        """Headline values at the end of the training."""
        return summary_table(self.analysis, self.measured)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measured, self._measured_at = self.analysis.measure(self.subject(pl_module)), trainer.global_step
        values = {f"analysis/{self.analysis.name}/{k}": v for k, v in self.analysis.summary(self._measured).items()}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **values}, step=trainer.global_step)
