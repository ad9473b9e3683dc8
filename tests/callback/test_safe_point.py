"""Saved where a run can go on: never inside a step, at the end of an epoch, and when a signal has asked."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vitexp.callback import safe_point as module
from vitexp.callback.finite import Finite
from vitexp.callback.safe_point import SafePoint
from vitexp.errors import Interrupted
from vitexp.machine import signals as interrupt


class Checkpoints:
    def __init__(self) -> None:
        self.best: list[dict[str, Any]] = []

    def save_checkpoint(self, content: dict[str, Any], path: Path) -> None:
        assert path.name == "best.ckpt"
        self.best.append(content)


class Scene:
    """A safe point with the few things it reads of a trainer, and what it saved."""

    def __init__(self, tmp_path: Path, *, every_s: float = 1e9, accumulate: int = 1) -> None:
        self.saved: list[dict[str, int]] = []
        self.point = SafePoint(folder=tmp_path, every_s=every_s, finite=Finite(every=1))
        self.checkpoints = Checkpoints()
        self.model = torch.nn.Linear(1, 1)
        self.module = SimpleNamespace(monitor=("val/top1", 1), evaluated=None, model=self.model)
        self.trainer = SimpleNamespace(
            global_step=0,
            current_epoch=0,
            max_epochs=3,
            is_last_batch=False,
            is_global_zero=True,
            world_size=1,
            accumulate_grad_batches=accumulate,
            callback_metrics={},
            strategy=SimpleNamespace(checkpoint_io=self.checkpoints),
            save_checkpoint=self._save,
        )

    def _save(self, path: Path) -> None:
        assert path.name == "last.ckpt"
        checkpoint: dict[str, Any] = {}
        self.point.on_save_checkpoint(self.trainer, self.module, checkpoint)
        self.saved.append(checkpoint["vitexp"])

    def batch(self, index: int, *, last: bool = False) -> None:
        self.trainer.global_step += 1
        self.trainer.is_last_batch = last
        self.point.on_train_batch_end(self.trainer, self.module, None, None, index)

    def epoch(self, number: int, top1: float | None = None) -> None:
        self.trainer.current_epoch = number
        self.trainer.callback_metrics = {} if top1 is None else {"val/top1": torch.tensor(top1)}
        self.point.on_train_epoch_end(self.trainer, self.module)


def test_a_due_save_says_where_the_run_goes_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path, every_s=0)
    scene.batch(0)
    scene.batch(1, last=True)
    assert scene.saved == [{"step": 1, "epoch": 0, "batch": 1}], "after the last batch comes the validation first"
    scene.epoch(0)
    assert scene.saved[-1] == {"step": 2, "epoch": 1, "batch": 0}


def test_not_due_is_not_saved_but_the_end_is(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.batch(0)
    scene.epoch(0)
    scene.epoch(1)
    assert not scene.saved
    scene.epoch(2)
    assert [place["epoch"] for place in scene.saved] == [3]


def test_micro_batches_are_no_safe_points(tmp_path: Path) -> None:
    scene = Scene(tmp_path, every_s=0, accumulate=2)
    scene.batch(0)
    assert not scene.saved
    scene.batch(1)
    assert [place["batch"] for place in scene.saved] == [2]


def test_best_follows_the_monitored_value(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for epoch, top1 in enumerate((0.5, 0.4, 0.6)):
        scene.epoch(epoch, top1)
    assert [content["vitexp"]["epoch"] for content in scene.checkpoints.best] == [1, 3]
    assert scene.point.best == pytest.approx(0.6)
    assert scene.point.best_epoch == 2


def test_a_smaller_loss_is_better_where_the_sign_says_so(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.module.monitor = ("val/top1", -1)
    for epoch, loss in enumerate((0.5, 0.4, 0.6)):
        scene.epoch(epoch, loss)
    assert [content["vitexp"]["epoch"] for content in scene.checkpoints.best] == [1, 2]


def test_best_survives_a_resume_and_holds_the_average(tmp_path: Path) -> None:
    scene, again = Scene(tmp_path), Scene(tmp_path)
    scene.epoch(0, 0.9)
    again.point.load_state_dict(scene.point.state_dict())
    again.epoch(1, 0.8)
    assert not again.checkpoints.best
    average = torch.nn.Linear(1, 1)
    again.module.evaluated = average
    again.epoch(2, 0.95)
    assert torch.equal(again.checkpoints.best[0]["state_dict"]["weight"], average.weight)


def test_a_signal_waits_for_the_next_safe_point(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    scene.point.on_train_start(scene.trainer, scene.module)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted) as stopped:
            scene.batch(0)
        assert stopped.value.exit_code == 130
        assert scene.saved == [{"step": 1, "epoch": 0, "batch": 1}]
    finally:
        scene.point.on_exception(scene.trainer, scene.module, stopped.value)
    assert signal.getsignal(signal.SIGINT) == before, "the signals are given back"


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.point.on_train_start(scene.trainer, scene.module)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted) as stopped:
            os.kill(os.getpid(), signal.SIGINT)
        assert stopped.value.exit_code == 130
        assert not scene.saved
    finally:
        scene.point.on_train_end(scene.trainer, scene.module)


def test_what_is_heard_twice_in_a_second_is_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM signals every process of a job's step, and the one that started this one passes it on."""
    scene = Scene(tmp_path)
    scene.point.on_train_start(scene.trainer, scene.module)
    try:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(interrupt, "_ECHO_S", 0.0)
        with pytest.raises(Interrupted) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.value.exit_code == 143
    finally:
        scene.point.on_train_end(scene.trainer, scene.module)


def test_the_grace_time_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that never ends does not hold the process for ever."""
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    monkeypatch.setattr(interrupt, "_ECHO_S", 0.0)
    scene = Scene(tmp_path)
    scene.point.on_train_start(scene.trainer, scene.module)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            signal.pause()
    finally:
        scene.point.on_train_end(scene.trainer, scene.module)


def test_processes_of_one_run_save_and_stop_together(tmp_path: Path) -> None:
    """Only the other process was asked to stop: this one saves at the same step, and stops with it."""
    scene, votes = Scene(tmp_path), list[bool]()

    def any_of(mine: bool, all: bool) -> bool:
        votes.append(mine)
        return len(votes) == 2  # the second question of a step: was anyone asked to stop?

    scene.trainer.world_size = 2
    scene.trainer.strategy.reduce_boolean_decision = any_of
    with pytest.raises(Interrupted) as stopped:
        scene.point.on_train_batch_end(scene.trainer, scene.module, None, None, 0)  # type: ignore[arg-type]
    assert votes == [False, False]
    assert stopped.value.exit_code == 143
    assert len(scene.saved) == 1
