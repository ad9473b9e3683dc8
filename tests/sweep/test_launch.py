"""Submitit takes frozen jobs: which launchers are known, and that a killed job costs the launcher nothing."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps import TOY, finish, jobs, start, until
from vitexp.cli import main
from vitexp.errors import ConfigError
from vitexp.sweep.launch import launcher_of


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """`main` installs its handlers; give the test runner its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_slots_of_this_machine_are_the_default() -> None:
    assert launcher_of([]) is None
    assert launcher_of(["hydra/launcher=basic"]) is None
    launcher = launcher_of(["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.mem_gb=4"])
    assert launcher is not None
    assert launcher.name == "submitit_slurm"
    assert {"partition": "gpu", "mem_gb": 4, "timeout_min": 60, "qos": None}.items() <= launcher.values.items()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/launcher=ray"], "submitit_slurm"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "slots=4"),
        (["hydra/launcher=submitit_slurm", "hydra.launcher.partitoin=gpu"], "did you mean partition"),
        (["hydra/launcher=submitit_local", "hydra.launcher.partition=gpu"], "timeout_min"),
        (["hydra.launcher.partition=gpu"], "hydra/launcher=submitit_slurm"),
        (["hydra.sweep.dir=x"], "hydra.launcher"),
    ],
)
def test_what_a_sweep_does_not_take_is_said(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        launcher_of(words)


def test_a_launcher_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'vitexp\[submitit\]'"):
        launcher_of(["hydra/launcher=submitit_local"])


def test_a_sampler_that_is_not_installed_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["-m", "sweeper=optuna", "lr=interval(0.1,1)"]) == 2
    assert "pip install 'vitexp[optuna]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweeper=optuna", "lr=interval(0.1,1)", "hydra/launcher=submitit_local"], "slots="),
        (["seed=0,1", "slots=0"], "slots=4"),
        (["seed=0,1", "only=broken"], "only=failed"),
        (["seed=0,1", "only=failed"], "no sweep of these jobs"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-m", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_launcher_runs_the_jobs_and_the_same_command_what_is_left(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    more = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=9")
    words = (*TOY, "epochs=40", "trainer.checkpoint_seconds=0", "seed=0,1", *more)
    process = start(tmp_path, *words)
    until(lambda: len(jobs(tmp_path)) == 2 and (jobs(tmp_path)[0]["path"] / "checkpoints" / "last.ckpt").exists())
    os.kill(jobs(tmp_path)[0]["pid"], signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 7, output
    assert [job["state"] for job in jobs(tmp_path)] == ["killed", "done"], output
    code, output = finish(tmp_path, *words)
    assert code == 0, output
    assert "1 of 2 jobs are done" in output
    assert [job["attempts"] for job in jobs(tmp_path)] == [2, 1]
    assert "resuming" in (jobs(tmp_path)[0]["path"] / "output.txt").read_text()


@pytest.mark.slow
def test_a_job_whose_time_is_almost_over_is_saved_and_started_again(tmp_path: Path) -> None:
    """The notice that submitit gets from SLURM; nothing but it has a checkpoint written here."""
    pytest.importorskip("submitit")
    more = ("trainer.log_every=1", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=9")
    process = start(tmp_path, *TOY, "epochs=60", "seed=0,1", *more)
    rows = [tmp_path / "none"]

    def both_train() -> bool:
        rows[:] = tmp_path.glob("outputs/sweeps/*/*/metrics.csv")
        return len(rows) == 2 and all(len(file.read_text().splitlines()) > 5 for file in rows)

    until(both_train)
    for job in jobs(tmp_path):
        parent = Path(f"/proc/{job['pid']}/stat").read_text().rpartition(")")[2].split()[1]
        os.kill(int(parent), signal.SIGUSR2)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert [job["state"] for job in jobs(tmp_path)] == ["done", "done"]
    for job, file in zip(jobs(tmp_path), sorted(rows), strict=True):
        text = (job["path"] / "output.txt").read_text()
        assert job["attempts"] == 2, text
        assert "Traceback" not in text
        assert "at step 0 " not in text.split("resuming")[1]
        assert [int(row.split(",", 1)[0]) for row in file.read_text().splitlines()[1:]] == list(range(1, 361))


@pytest.mark.slow
def test_ctrl_c_saves_the_jobs_of_a_launcher_here(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    words = (*TOY, "epochs=200", "trainer.checkpoint_seconds=0", "seed=0,1", "hydra/launcher=submitit_local")
    process = start(tmp_path, *words)
    until(lambda: len(jobs(tmp_path)) == 2 and all((job["path"] / "metrics.csv").exists() for job in jobs(tmp_path)))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert [job["state"] for job in jobs(tmp_path)] == ["interrupted"] * 2, output
