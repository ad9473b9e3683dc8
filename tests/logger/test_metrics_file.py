"""metrics.csv: strictly increasing steps, none lost and none doubled, whatever happens between."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vitexp.errors import ConfigError, ResourceError
from vitexp.logger.metrics_file import MetricsFile, read_metrics
from vitexp.report.metrics import COLUMNS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def steps(path: Path) -> list[int]:
    return [int(row["step"]) for row in read_metrics(path)]


def test_a_row_is_on_disk_when_it_is_logged(path: Path) -> None:
    file = MetricsFile(path)
    for step in range(1, 6):
        file.log({"epoch": 0, "lr": step / 10}, step)
        assert read_metrics(path)[-1] == {"step": step, "epoch": 0, "lr": step / 10}
    assert steps(path) == [1, 2, 3, 4, 5]


def test_values_of_one_step_share_a_row(path: Path) -> None:
    file = MetricsFile(path)
    file.log({"epoch": 0, "lr": 123456.0}, 4)
    file.log({"val/loss": 1.5}, 4)
    file.log({"lr": 1.0}, 4)  # shorter than before: nothing of the old row may stay
    assert read_metrics(path) == [{"step": 4, "epoch": 0, "lr": 1.0, "val/loss": 1.5}]
    assert path.read_text().endswith("\n")


def test_a_lower_step_lands_in_the_last_row(path: Path) -> None:
    file = MetricsFile(path)
    file.log({"lr": 0.5}, 10)
    file.log({"val/loss": 1.0}, 9)
    assert read_metrics(path) == [{"step": 10, "lr": 0.5, "val/loss": 1.0}]


def test_columns_may_appear_later(path: Path) -> None:
    file = MetricsFile(path)
    for step in (1, 2):
        file.log({"lr": 0.5, "epoch": 0}, step)
    file.log({"zebra": 3.0, "val/top1": 0.25}, 2)
    file.log({"lr": 0.25, "test/top1": 1.0}, 3)
    assert read_metrics(path) == [
        {"step": 1, "epoch": 0, "lr": 0.5},
        {"step": 2, "epoch": 0, "lr": 0.5, "val/top1": 0.25, "zebra": 3.0},
        {"step": 3, "lr": 0.25, "test/top1": 1.0},
    ]
    lines = path.read_text().splitlines()
    assert lines[0] == "step,epoch,lr,val/top1,test/top1,zebra"
    assert {line.count(",") for line in lines} == {5}
    order = [name for name in COLUMNS if name in lines[0].split(",")]
    assert lines[0].split(",")[: len(order)] == order


def test_float32_and_non_finite_values_survive(path: Path) -> None:
    import numpy as np

    values = [float(v) for v in np.random.default_rng(0).normal(size=50).astype(np.float32)]
    file = MetricsFile(path)
    for step, value in enumerate([*values, float("inf"), float("nan")]):
        file.log({"lr": value}, step)
    read = [row["lr"] for row in read_metrics(path)]
    assert [np.float32(v) for v in read[:50]] == [np.float32(v) for v in values]
    assert read[50] == float("inf")
    assert read[51] != read[51]


def test_resume_drops_later_rows_and_doubles_none(path: Path) -> None:
    def log(file: MetricsFile, first: int, last: int) -> None:
        for step in range(first, last + 1):
            file.log({"lr": step / 7}, step)
            if step % 5 == 0:
                file.log({"val/loss": 1 / step}, step)

    log(MetricsFile(path), 1, 20)
    whole = path.read_bytes()
    for checkpoint in (0, 3, 5, 12, 20):
        resumed = MetricsFile(path, resume_step=checkpoint)
        assert steps(path) == list(range(1, checkpoint + 1))
        log(resumed, checkpoint + 1, 20)
        assert path.read_bytes() == whole


def test_resume_mends_a_torn_row_and_repeated_steps(path: Path) -> None:
    path.write_text("step,lr\n1,0.1\n2,0.2\n2,0.2\n3,0.3\n4,0.")
    file = MetricsFile(path, resume_step=9)
    assert steps(path) == [1, 2, 3]
    file.log({"lr": 0.4}, 4)
    assert steps(path) == [1, 2, 3, 4]


def test_resume_merges_into_the_last_kept_row(path: Path) -> None:
    MetricsFile(path).log({"lr": 0.5}, 4)
    MetricsFile(path, resume_step=4).log({"val/loss": 1.0}, 4)
    assert read_metrics(path) == [{"step": 4, "lr": 0.5, "val/loss": 1.0}]


def test_resume_without_a_file_starts_one(path: Path) -> None:
    MetricsFile(path, resume_step=7).log({"lr": 0.5}, 8)
    assert steps(path) == [8]


def test_a_new_run_never_overwrites(path: Path) -> None:
    MetricsFile(path).log({"lr": 0.5}, 1)
    with pytest.raises(ConfigError, match="vitexp resume"):
        MetricsFile(path)
    assert steps(path) == [1]


def test_logging_goes_on_after_finish(path: Path) -> None:
    file = MetricsFile(path)
    file.log({"lr": 0.5}, 1)
    for _ in range(2):
        file.finish(0)
    file.log({"lr": 0.25}, 2)
    assert steps(path) == [1, 2]


@pytest.mark.slow  # a process of its own has to import Lightning
def test_a_kill_loses_no_logged_row(path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from vitexp.logger.metrics_file import MetricsFile\n"
        "file = MetricsFile(Path(sys.argv[1]))\n"
        "for step in range(1, 1000):\n"
        "    file.log({'lr': step, 'epoch': 0}, step)\n"
        "    if step == 321: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    assert steps(path) == list(range(1, 322))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_says_what_to_free(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    file = MetricsFile(path)
    file.log({"lr": 0.5}, 1)

    def refuse(*args: object, **keywords: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(ResourceError, match=r"free space there.*vitexp resume"):
        file.log({"lr": 0.5}, 2)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ResourceError):
        file.log({"new": 0.5}, 3)
    assert steps(path) == [1]


def test_a_row_is_one_system_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = MetricsFile(path)
    file.log({"lr": 0.5}, 1)
    file.log({"lr": 0.5}, 2)
    calls: list[str] = []
    for name in ("pwrite", "fsync", "ftruncate", "open", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, o=original, n=name, **k: (calls.append(n), o(*a, **k))[1])
    for step in range(3, 8):
        file.log({"lr": 0.5}, step)
    assert calls == ["pwrite"] * 5
