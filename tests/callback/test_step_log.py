"""One row every N steps with the mean since the last one, and none lost at the end of an epoch or over a resume."""

from types import SimpleNamespace
from typing import Any

import torch

from vitexp.callback.step_log import StepLog


class Rows:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        self.rows.append({"step": step, **metrics})


class Strategy:
    """One process of two; the other's sums are three times as large."""

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes

    def reduce(self, value: Any, reduce_op: str) -> Any:
        assert reduce_op == "mean"
        return value if self.processes == 1 else 2 * value


def run(
    log: StepLog, losses: list[float], *, start: int = 0, accumulate: int = 1, processes: int = 1
) -> list[dict[str, Any]]:
    logger = Rows()
    groups = [{"lr": 0.1}, {"lr": 0.5}]
    trainer = SimpleNamespace(
        global_step=start,
        current_epoch=2,
        loggers=[logger],
        optimizers=[SimpleNamespace(param_groups=groups)],
        strategy=Strategy(processes),
    )
    module = SimpleNamespace(last_loss=None, grad_norm=torch.tensor(3.0))
    for index, loss in enumerate(losses, start=1):
        module.last_loss = torch.tensor(loss)
        trainer.global_step = start + index // accumulate
        log.on_train_batch_end(trainer, module, {"loss": None}, None, index)
    log.on_train_epoch_end(trainer, module)
    return logger.rows


def test_a_row_is_the_mean_of_its_steps() -> None:
    rows = run(StepLog(every=2), [1.0, 3.0, 5.0, 7.0])
    assert [(row["step"], row["train/loss_step"]) for row in rows] == [(2, 2.0), (4, 6.0)]
    assert rows[0] == {"step": 2, "epoch": 2, "train/loss_step": 2.0, "lr": 0.5, "train/grad_norm": 3.0}


def test_the_rest_of_an_epoch_is_a_row_of_its_own() -> None:
    rows = run(StepLog(every=2), [1.0, 3.0, 5.0])
    assert [(row["step"], row["train/loss_step"]) for row in rows] == [(2, 2.0), (3, 5.0)]


def test_micro_batches_are_averaged_too() -> None:
    rows = run(StepLog(every=1), [1.0, 3.0, 5.0, 7.0], accumulate=2)
    assert [(row["step"], row["train/loss_step"]) for row in rows] == [(1, 2.0), (2, 6.0)]


def test_an_open_sum_goes_on_after_a_resume() -> None:
    whole = run(StepLog(every=4), [1.0, 2.0, 3.0, 6.0])
    first = StepLog(every=4)
    first._sum, first._count = torch.tensor(3.0), 2  # after two steps of the four
    again = StepLog(every=4)
    trainer: Any = SimpleNamespace(strategy=Strategy())
    checkpoint: dict[str, Any] = {}
    first.on_save_checkpoint(trainer, SimpleNamespace(), checkpoint)  # type: ignore[arg-type]
    again.on_load_checkpoint(trainer, SimpleNamespace(), checkpoint)  # type: ignore[arg-type]
    assert run(again, [3.0, 6.0], start=2) == whole


def test_the_row_of_several_processes_is_of_all() -> None:
    rows = run(StepLog(every=2), [1.0, 3.0], processes=2)
    assert [row["train/loss_step"] for row in rows] == [4.0]
