"""The moving average is what its formula says, is evaluated as a copy, and survives a resume."""

from types import SimpleNamespace

import torch
from torch import nn

from vitexp.callback.average import Average


def started(decay: float, value: float = 1.0) -> tuple[Average, SimpleNamespace, SimpleNamespace]:
    """An average over a model of one weight, as at the start of a fit."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    module = SimpleNamespace(model=model, device=torch.device("cpu"), evaluated=None)
    trainer = SimpleNamespace(global_step=0)
    average = Average(decay=decay)
    average.setup(trainer, module, "fit")
    average.on_fit_start(trainer, module)
    return average, trainer, module


def step(average: Average, trainer: SimpleNamespace, module: SimpleNamespace, value: float) -> None:
    nn.init.constant_(module.model.weight, value)
    trainer.global_step += 1
    average.on_train_batch_end(trainer, module, None, None, 0)


def test_the_first_step_is_copied_and_later_ones_decay() -> None:
    average, trainer, module = started(decay=0.75)
    for value in (2.0, 6.0, 10.0):
        step(average, trainer, module, value)
    expected = 0.75 * (0.75 * 2.0 + 0.25 * 6.0) + 0.25 * 10.0
    assert average.average is not None
    assert average.average.module.weight.item() == expected
    assert module.model.weight.item() == 10.0, "the trained weights are never swapped out"


def test_micro_batches_of_one_step_count_once() -> None:
    average, trainer, module = started(decay=0.5)
    step(average, trainer, module, 2.0)
    nn.init.constant_(module.model.weight, 100.0)
    average.on_train_batch_end(trainer, module, None, None, 1)  # global_step has not moved
    assert average.average is not None
    assert average.average.module.weight.item() == 2.0


def test_validation_and_test_run_the_copy_in_eval_mode() -> None:
    average, trainer, module = started(decay=0.5)
    step(average, trainer, module, 3.0)
    average.on_validation_start(trainer, module)
    assert average.average is not None
    assert module.evaluated is average.average.module
    assert not module.evaluated.training
    module.evaluated = None
    average.on_test_start(trainer, module)
    assert module.evaluated is average.average.module


def test_a_resume_goes_on_with_the_saved_average() -> None:
    average, trainer, module = started(decay=0.5)
    for value in (2.0, 4.0):
        step(average, trainer, module, value)
    saved = average.state_dict()
    again, later, model = started(decay=0.5)
    again.load_state_dict(saved)
    again.on_fit_start(later, model)
    later.global_step = trainer.global_step
    for which, where, what in ((average, trainer, module), (again, later, model)):
        step(which, where, what, 8.0)
    assert average.average is not None
    assert again.average is not None
    assert again.average.module.weight.item() == average.average.module.weight.item() == 0.5 * 3.0 + 0.5 * 8.0


def test_a_run_validates_and_tests_the_average(tmp_path, monkeypatch) -> None:
    """Through Lightning: with an average that never leaves the start, training changes no validation."""
    from vitexp.cli import main
    from vitexp.report.metrics import read_metrics

    monkeypatch.chdir(tmp_path)
    model = ["model=vit_ti16", "model.depth=1", "model.dim=12"]  # no batch norms, whose statistics go on
    small = [*model, "data=fake", "data.sizes=[32,16,8]", "bs=8", "epochs=2", "lr=0.05", "logger=none", "quiet=true"]
    losses = {}
    for name, ema in (("still", "0.999999999999"), ("raw", "null")):
        assert main([*small, f"trainer.ema={ema}", f"outputs={name}"]) == 0
        rows = read_metrics(tmp_path / name / "last" / "metrics.csv")
        losses[name] = [row["val/loss"] for row in rows if "val/loss" in row]
    assert losses["still"][0] == losses["still"][1]
    assert losses["raw"][0] != losses["raw"][1]
