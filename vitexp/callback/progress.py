"""The progress of a run: a live line on a terminal, plain lines elsewhere, nothing if quiet.

A step costs two clock readings and a few additions; drawing, and reading the loss off the device, happen by time, a few
times a second. Lightning's own bars draw and convert every metric at every step, which is most of a small model's time.
"""

import math
from time import perf_counter
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.live import Live

from vitexp.callback.meter import Meter, Reading
from vitexp.report.console import make_console
from vitexp.report.live import Status, epoch_head, epoch_line, heartbeat, status_line

_REFRESH_S = 0.25
_HEARTBEAT_S = 30.0
# A page of epoch lines, then the head again.
_PAGE = 40


class Progress(Callback):
    """Show one run on `console` (standard output if None).

    Reads `pl_module.last_loss` (a detached tensor or None), `pl_module.monitor` (name, sign) and
    `trainer.callback_metrics`.
    """

    def __init__(self, *, quiet: bool, console: Console | None = None) -> None:
        self.quiet = quiet
        self.console = console or make_console()
        self.best: float | None = None
        self._meter = Meter()
        self._live: Live | None = None
        self._due = 0.0
        self._loss: float | None = None
        self._stage = ""
        self._position = (0, 0.0)
        self._epoch_start: tuple[float, Reading] = (0.0, Reading())
        self._ended: tuple[str, float, Reading, float | None] | None = None
        self._lines = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Other processes of a distributed run keep silent."""
        self.quiet = self.quiet or not trainer.is_global_zero

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the best value of an earlier session, and open the live line."""
        self.best = getattr(trainer.checkpoint_callback, "best", None)
        # A run that goes on inside an epoch has no on_train_epoch_start.
        self._start_epoch(perf_counter())
        self._start_live()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch before: only now are all its metrics there."""
        self._print_epoch(trainer, pl_module)
        self._start_epoch(perf_counter())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """The wait is over."""
        self._meter.start_step(perf_counter())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Count; draw if it is time."""
        now = perf_counter()
        self._meter.end_step(now, len(batch[0]))
        self._position = (batch_idx + 1, trainer.num_training_batches)
        if now >= self._due and not self.quiet:
            self._read_loss(pl_module)
            self._draw(trainer, now)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the epoch's times and learning rate for its line."""
        started, reading = self._epoch_start
        label = _fraction_of(trainer.current_epoch + 1, trainer.max_epochs)
        elapsed = perf_counter() - started
        self._ended = (label, elapsed, self._meter.read().since(reading), _learning_rate(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last epoch, close the line."""
        self._print_epoch(trainer, pl_module)
        self._stop_live()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is neither training nor waiting."""
        if not trainer.sanity_checking:
            self._start_eval("val")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw if it is time."""
        if not trainer.sanity_checking:
            self._eval_batch(trainer, batch_idx, trainer.num_val_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the best value."""
        if trainer.sanity_checking:
            return
        self._end_eval(trainer)
        name, sign = _monitor(pl_module)
        if name in trainer.callback_metrics:
            value = float(trainer.callback_metrics[name])
            if self.best is None or sign * (value - self.best) > 0:
                self.best = value

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a line for the test."""
        self._start_eval("test")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw if it is time."""
        self._eval_batch(trainer, batch_idx, trainer.num_test_batches)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the line."""
        self._end_eval(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Interrupted or failed: give the terminal back first, then say how far it came."""
        self._stop_live()
        self._print_epoch(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """However it ended, the cursor is back."""
        self._stop_live()

    def _start_epoch(self, now: float) -> None:
        self._meter.start_waiting(now)
        self._epoch_start = (now, self._meter.read())
        self._stage = "epoch"

    def _start_eval(self, stage: str) -> None:
        self._meter.start_eval(perf_counter())
        self._stage, self._position = stage, (0, 0.0)
        self._start_live()

    def _eval_batch(self, trainer: Trainer, batch_idx: int, batches: Any) -> None:
        now = perf_counter()
        if now >= self._due and not self.quiet:
            total = sum(batches) if isinstance(batches, list) else batches
            self._position = (batch_idx + 1, total)
            self._draw(trainer, now)

    def _end_eval(self, trainer: Trainer) -> None:
        self._meter.end_eval(perf_counter())
        self._stage = "epoch"
        if trainer.state.fn != "fit":
            self._stop_live()

    def _start_live(self) -> None:
        now = perf_counter()
        if self._is_terminal() and not self.quiet:
            if self._live is None:
                self._live = Live(console=self.console, auto_refresh=False, transient=True)
                self._live.start()
        elif not self._due:
            self._due = now + _HEARTBEAT_S

    def _stop_live(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _is_terminal(self) -> bool:
        """Whether a line can be drawn again in place; $FORCE_COLOR in a log file does not make it a terminal."""
        console = self.console
        return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter

    def _read_loss(self, pl_module: LightningModule) -> None:
        """Wait for the device, once a drawing."""
        loss = getattr(pl_module, "last_loss", None)
        self._loss = None if loss is None else float(loss)

    def _draw(self, trainer: Trainer, now: float) -> None:
        status = self._status(trainer)
        if self._live is None:
            self.console.print(heartbeat(status), soft_wrap=True)
            self._due = now + _HEARTBEAT_S
            return
        ascii_only = self.console.options.ascii_only
        self._live.update(status_line(status, width=self.console.width, ascii_only=ascii_only), refresh=True)
        self._due = perf_counter() + _REFRESH_S

    def _status(self, trainer: Trainer) -> Status:
        batch, batches = self._position
        if trainer.state.fn != "fit":
            return Status(f"{self._stage} {_fraction_of(batch, batches)}", fraction=_share(batch, batches))
        recent = self._meter.recent()
        epoch = _fraction_of(trainer.current_epoch + 1, trainer.max_epochs)
        training = self._stage == "epoch"
        done = trainer.current_epoch * float(trainer.num_training_batches) + (batch if training else 0)
        done = done if training else done + trainer.num_training_batches
        total = _total_batches(trainer)
        evals = math.ceil((total - done) / trainer.num_training_batches) if math.isfinite(total) else 0
        return Status(
            f"epoch {epoch}" if training else f"{self._stage} {_fraction_of(batch, batches)}",
            steps=_fraction_of(batch, batches) if training else f"epoch {epoch}",
            fraction=_share(done, total),
            remaining=self._meter.remaining(total - done, evals) if math.isfinite(total) else None,
            rate=recent.rate or None,
            waiting=recent.wait_share,
            loss=self._loss,
            best=self.best,
        )

    def _print_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._ended is None or self.quiet:
            return
        (label, seconds, reading, lr), self._ended = self._ended, None
        names = list(dict.fromkeys(["train/loss", "val/loss", _monitor(pl_module)[0]]))
        metrics = trainer.callback_metrics
        values = [float(metrics[name]) if name in metrics else None for name in names]
        if self._lines % _PAGE == 0:
            self._say(epoch_head(names))
        self._lines += 1
        self._say(epoch_line(label, values, lr=lr, seconds=seconds, rate=reading.rate, waiting=reading.wait_share))
        if self._live is None:
            self._due = perf_counter() + _HEARTBEAT_S

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)


def _fraction_of(done: int, total: float | None) -> str:
    """`3/20`; only `3` where the end is not known."""
    known = total is not None and math.isfinite(total) and total > 0
    return f"{done:,}/{int(total):,}" if known and total is not None else f"{done:,}"


def _share(done: float, total: float) -> float | None:
    return min(1.0, done / total) if math.isfinite(total) and total > 0 else None


def _total_batches(trainer: Trainer) -> float:
    """Micro-batches of the whole run; infinite where nobody knows."""
    by_steps = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else math.inf
    by_epochs = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        by_epochs = trainer.max_epochs * float(trainer.num_training_batches)
    return min(by_steps, by_epochs)


def _learning_rate(trainer: Trainer) -> float | None:
    """The largest of the parameter groups: layer decay makes the others smaller."""
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return float(max(rates)) if rates else None


def _monitor(pl_module: LightningModule) -> tuple[str, int]:
    """The task's own monitor; the validation loss, less of it being better, for a module without one."""
    monitor: tuple[str, int] = getattr(pl_module, "monitor", ("val/loss", -1))
    return monitor
