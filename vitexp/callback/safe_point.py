"""Saving and stopping a run, only at points from which it can go on bit for bit.

A safe point is (a) after an optimizer step that is not the epoch's last batch, (b) the end of a training epoch, after
its validation (reliability.md, design B; Lightning's loop counters resume exactly from these and only these).
SIGINT, SIGTERM and SIGUSR1 wait for the next one; a second signal, or the end of the grace time, stops at once.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from vitexp.callback.finite import Finite
from vitexp.checkpoint.adapter import BASE, require_base, trained_names, without_base
from vitexp.checkpoint.safe_io import BEST, LAST
from vitexp.errors import CheckpointError, Interrupted
from vitexp.machine.signals import SIGNALS, is_echo

GRACE_S = 30.0


class SafePoint(Checkpoint):
    """Save `last.ckpt` every `every_s` seconds at the least and at the end, `best.ckpt` when the monitored value rises.

    A Checkpoint by type, because Lightning calls those after the module's own epoch end.
    """

    def __init__(self, *, folder: Path, every_s: float, finite: Finite) -> None:
        self.folder = folder
        self.every_s = every_s
        self.finite = finite
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._saved_at = time.monotonic()
        self._signum: int | None = None
        self._speaks = False  # one process of a run does
        self._position: dict[str, int] = {}
        self._earlier: dict[int, Any] = {}
        self._grace: threading.Timer | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """A checkpoint of a regime has no tensors of the frozen base, which is there already."""
        model: Any = pl_module.model
        pl_module.strict_loading = trained_names(model) is None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals; Lightning has set its own by now."""
        self._speaks = trainer.is_global_zero
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                self._earlier[signum] = signal.signal(signum, self._request)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save or stop, if it is time: after a step is safe point (a)."""
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self._wanted(trainer):
            self._save(trainer, pl_module, epoch=trainer.current_epoch, batch=batch_idx + 1)
            self._stop_if_asked()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Safe point (b): the best weights, then the state."""
        self.finite.check(pl_module)
        epoch = trainer.current_epoch
        monitor: Any = pl_module.monitor
        name, sign = monitor
        value = trainer.callback_metrics.get(name)
        if value is not None and (self.best is None or sign * (float(value) - self.best) >= 0):
            self.best, self.best_epoch = float(value), epoch
            self._save_best(trainer, pl_module)
        if self._wanted(trainer) or epoch + 1 == trainer.max_epochs:
            self._save(trainer, pl_module, epoch=epoch + 1, batch=0)
            self._stop_if_asked()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._restore_signals()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back; nothing is saved here, for this is no safe point."""
        self._restore_signals()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say in the file where the run goes on; leave the frozen base out and name it."""
        checkpoint["vitexp"] = dict(self._position)
        model: Any = pl_module.model
        if (names := trained_names(model)) is not None:
            checkpoint["state_dict"] = without_base(checkpoint["state_dict"], names, prefix="model.")
            checkpoint[BASE] = model.fingerprint

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on only over the base that the checkpoint was trained on."""
        model: Any = pl_module.model
        if (names := trained_names(model)) is not None:
            require_base(model, str(checkpoint.get(BASE)), self.folder / LAST)
            found = {name.removeprefix("model.") for name in checkpoint["state_dict"]}
            if not names <= found:
                raise CheckpointError(f"{self.folder} lacks {sorted(names - found)}; the run must be trained again")

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best value of the earlier session."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    def _wanted(self, trainer: Trainer) -> bool:
        """Whether to save here. The processes of a run decide as one: saving alone, one would wait for the others."""
        due, asked = time.monotonic() - self._saved_at >= self.every_s, self._signum is not None
        if trainer.world_size > 1:
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
            if asked and self._signum is None:
                self._signum = signal.SIGTERM
        return due or asked

    def _save(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int, batch: int) -> None:
        self.finite.check(pl_module)
        self._position = {"step": trainer.global_step, "epoch": epoch, "batch": batch}
        trainer.save_checkpoint(self.folder / LAST)
        self._saved_at = time.monotonic()

    def _save_best(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        model: Any = pl_module.evaluated if pl_module.evaluated is not None else pl_module.model
        trained: Any = pl_module.model
        names = trained_names(trained)
        content = {
            "state_dict": without_base(model.state_dict(), names),
            **({} if names is None else {BASE: trained.fingerprint}),
            "vitexp": {"step": trainer.global_step, "epoch": trainer.current_epoch + 1, "batch": 0},
        }
        trainer.strategy.checkpoint_io.save_checkpoint(content, self.folder / BEST)

    def _request(self, signum: int, frame: FrameType | None) -> None:
        if is_echo(signum):
            return
        if self._signum is not None:
            self._restore_signals()
            raise Interrupted(signum)
        self._signum = signum
        if self._speaks:
            os.write(sys.stderr.fileno(), b"\nvitexp: stopping at the next safe point (again: at once)\n")
        self._grace = threading.Timer(GRACE_S, os.kill, (os.getpid(), signum))
        self._grace.daemon = True
        self._grace.start()

    def _stop_if_asked(self) -> None:
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _restore_signals(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
        for signum, handler in self._earlier.items():
            signal.signal(signum, handler)
        self._earlier.clear()
