"""The clock of a run counts training and nothing else; the share is a share."""

from types import SimpleNamespace

from tests.commands import command
from vitexp.benchmark import runner
from vitexp.benchmark.runner import Clock, time_runner


def test_the_clock_leaves_validation_and_the_first_step_out(monkeypatch) -> None:
    now = iter([0.0, 10.0, 11.0, 15.0, 115.0, 116.0, 119.0])
    monkeypatch.setattr(runner, "perf_counter", lambda: next(now))
    clock, trainer = Clock(), SimpleNamespace()
    clock.on_train_batch_start(trainer, None, None, 0)
    clock.on_train_batch_end(trainer, None, None, None, 0)  # at 0: the first step
    clock.on_train_batch_start(trainer, None, None, 1)  # 10
    clock.on_train_batch_end(trainer, None, None, None, 1)  # 11
    clock.on_validation_start(trainer, None)  # 15
    clock.on_validation_end(trainer, None)  # 115
    clock.on_train_batch_start(trainer, None, None, 0)  # 116
    clock.on_train_batch_end(trainer, None, None, None, 0)  # 119
    assert clock.steps == 2
    assert clock.seconds == 11 + 8
    assert clock.waiting == 10 + 5


def test_the_run_is_timed_beside_a_bare_loop(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["data=fake", "data.sizes=[64,8,8]", "bs=8", "epochs=2", "logger=none", "benchmark.repeats=1"]
    report = time_runner(command(*small))
    assert [row[0] for row in report.rows] == ["bare", "vitexp"]
    assert report.ratios["runner over bare"] > 0
    assert report.ratios["runner share"] < 1
    assert 0 < report.ratios["between steps"] < 1
    assert not list(tmp_path.iterdir())
