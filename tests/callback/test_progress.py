"""What a run shows, through Lightning's real loops."""

import io
import re
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vitexp.callback import progress as module
from vitexp.callback.progress import Progress
from vitexp.report.console import make_console

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Task(LightningModule):
    monitor = ("val/top1", 1)

    def __init__(self, *, fail_at: int = -1, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.last_loss: Tensor | None = None
        self.fail_at, self.error = fail_at, error

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise self.error
        loss: Tensor = self.layer(batch[0]).square().mean()
        self.last_loss = loss.detach()
        return loss

    def on_train_epoch_end(self) -> None:
        # After the callbacks' own hook: the epoch's line must still have it.
        self.log("train/loss", 7.5)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"val/loss": 1.5, "val/top1": [0.25, 0.75, 0.5][self.current_epoch]})

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": self.layer.weight, "lr": 0.01}, {"params": self.layer.bias, "lr": 0.125}])


def loader() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(torch.zeros(20, 2), torch.zeros(20)), batch_size=5)


def fit(progress: Progress, task: Task | None = None, *, epochs: int = 3, **options: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[progress],
        **options,
    )
    trainer.fit(task or Task(), loader(), loader())
    return trainer


def epoch_lines(text: str) -> list[str]:
    return re.findall(r"^ +\d+/\d+ .*$", text, flags=re.MULTILINE)


def test_a_pipe_gets_one_whole_line_an_epoch() -> None:
    file = io.StringIO()
    progress = Progress(quiet=False, console=make_console(file))
    trainer = fit(progress, num_sanity_val_steps=2)
    trainer.test(Task(), loader(), verbose=False)
    lines = epoch_lines(file.getvalue())
    assert [line.split()[:4] for line in lines] == [
        ["1/3", "7.5000", "1.5000", "0.2500"],
        ["2/3", "7.5000", "1.5000", "0.7500"],
        ["3/3", "7.5000", "1.5000", "0.5000"],
    ]
    assert all("1.25e-01" in line for line in lines)  # the largest group's rate
    assert len(file.getvalue().splitlines()) == 4  # and their head; no control codes, no drawing
    assert "\x1b" not in file.getvalue()
    assert progress.best == 0.75


def test_long_epochs_have_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HEARTBEAT_S", 1e-9)
    file = io.StringIO()
    fit(Progress(quiet=False, console=make_console(file)), epochs=1)
    beats = [line for line in file.getvalue().splitlines() if "img/s" in line and line.startswith(("epoch 1", "val"))]
    assert len(beats) >= 4
    assert "ETA" in beats[1]
    assert "4/4" in file.getvalue()


def test_a_terminal_gets_a_bar_and_its_cursor_back() -> None:
    file = Terminal()
    progress = Progress(quiet=False, console=Console(file=file, force_terminal=True, width=80))
    trainer = fit(progress)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert len(epoch_lines(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", plain))) == 3
    assert "━" in file.getvalue()
    trainer.test(Task(), loader(), verbose=False)
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_however_it_ends_the_cursor_is_back(error: type[BaseException]) -> None:
    file, out = Terminal(), sys.stdout
    progress = Progress(quiet=False, console=Console(file=file, force_terminal=True, width=80))
    with pytest.raises((error, SystemExit)):
        fit(progress, Task(fail_at=6, error=error))
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 1
    assert sys.stdout is out
    assert "1/3" in file.getvalue()


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    file = Terminal()
    fit(Progress(quiet=True, console=Console(file=file, force_terminal=True)))
    assert file.getvalue() == ""
    assert "epoch" not in capsys.readouterr().out


def test_best_goes_on_from_the_checkpoint_and_follows_its_sign() -> None:
    progress = Progress(quiet=True)
    trainer: Any = SimpleNamespace(
        checkpoint_callback=SimpleNamespace(best=0.9),
        callback_metrics={"val/loss": torch.tensor(0.95)},
        state=SimpleNamespace(fn="fit"),
        sanity_checking=False,
    )
    task: Any = SimpleNamespace(monitor=("val/loss", -1))
    progress.on_train_start(trainer, task)
    progress.on_validation_end(trainer, task)
    assert progress.best == 0.9
    trainer.callback_metrics["val/loss"] = torch.tensor(0.5)
    progress.on_validation_end(trainer, task)
    assert progress.best == 0.5


def test_validation_is_not_waiting_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Task):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            time.sleep(0.05)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            time.sleep(0.02)
            return super().training_step(batch, batch_idx)

    progress = Progress(quiet=True)
    fit(progress, Slow(), epochs=2)
    reading = progress._meter.read()
    assert reading.batches == 8
    assert reading.images == 40
    assert reading.wait_share < 0.5  # validation alone takes 2.5 times the steps


def test_the_loss_is_read_when_drawn_not_at_every_step() -> None:
    class Loss:
        reads = 0

        def __float__(self) -> float:
            Loss.reads += 1
            return 1.0

    progress = Progress(quiet=False, console=Console(file=Terminal(), force_terminal=True, width=80))
    trainer: Any = SimpleNamespace(
        num_training_batches=100,
        current_epoch=0,
        max_epochs=1,
        max_steps=-1,
        accumulate_grad_batches=1,
        checkpoint_callback=None,
        state=SimpleNamespace(fn="fit"),
    )
    task: Any = SimpleNamespace(last_loss=Loss(), monitor=("val/top1", 1))
    batch = (torch.zeros(4, 1), None)
    progress.on_train_start(trainer, task)
    started = time.perf_counter()
    for index in range(2000):
        progress.on_train_batch_start(trainer, task, batch, index)
        progress.on_train_batch_end(trainer, task, None, batch, index)
    elapsed = time.perf_counter() - started
    progress.teardown(trainer, task, "fit")
    assert 1 <= Loss.reads <= 2 + elapsed / module._REFRESH_S
    assert elapsed / 2000 < 100e-6  # 2 µs when measured alone; the bound leaves room for a busy machine


def test_colours_forced_into_a_file_do_not_draw_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    fit(Progress(quiet=False, console=Console(file=file)), epochs=1)
    assert "\x1b[?25l" not in file.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    file = Terminal()
    fit(Progress(quiet=False, console=Console(file=file)), epochs=1)
    assert "\x1b[2K" not in file.getvalue()
