"""`vitexp resume`: what it refuses, what it allows on request, how a run is extended, and SLURM's turns."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.resume.toy import MEMORY, TOY, Death, differing, in_place, outcome, session, steps
from vitexp.cli import main
from vitexp.errors import CheckpointError, ConfigError, Interrupted
from vitexp.run.folder import find
from vitexp.run.slurm import begun, job, requeued
from vitexp.verb.resume import ON_REQUEST

WORDS = [*TOY, *MEMORY]
HALF = ("on_train_batch_start", 3)


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that was killed in its first epoch, as the working directory."""
    monkeypatch.chdir(tmp_path)
    assert not session(WORDS, Death(*HALF))
    return tmp_path


def test_a_change_is_refused_with_both_values(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = find("last", killed / "outputs").record
    for change, was, now in (
        ("bs=16", "8", "16"),
        ("trainer.clip=0.5", "1.0", "0.5"),
        ("data=digits", "fake", "digits"),
    ):
        assert main(["resume", change]) == 4
        message = capsys.readouterr().err
        assert f"was {was} in run" in message
        assert f"is {now} here" in message
    assert find("last", killed / "outputs").record == before


def test_a_meaningful_change_is_allowed_by_name_and_stays(killed: Path) -> None:
    assert main(["resume", "trainer.clip=0.5", "resume.allow=[trainer.clip]", "quiet=true"]) == 0
    run = find("last", killed / "outputs")
    assert run.config().trainer.clip == 0.5
    assert run.record["changed"] == ["trainer.clip=0.5 by resume.allow"]
    assert steps(killed) == list(range(1, 9))


@pytest.mark.parametrize("quiet", ["true", "false"])
def test_a_resumed_run_says_as_much_as_it_is_told_to(
    quiet: str, killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", f"quiet={quiet}"]) == 0
    assert ("resuming" in capsys.readouterr().out) == (quiet == "false")


@pytest.mark.parametrize("key", ["data.batch_size", "seed", "model.dim", "nonsense"])
def test_what_cannot_be_allowed_is_refused(key: str, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", f"resume.allow=[{key}]"]) == 2
    assert key in (message := capsys.readouterr().err)
    assert ON_REQUEST[0] in message


def test_a_run_is_extended_and_the_extension_resumes_too(killed: Path) -> None:
    assert session(WORDS)
    longer = [*WORDS, "epochs=3"]
    assert not session(longer, Death("on_train_batch_start", 9))
    assert session(["quiet=true"])
    assert steps(killed) == list(range(1, 13))
    assert find("last", killed / "outputs").record["epochs"] == 3
    with pytest.raises(ConfigError, match="fewer than"):
        session(["epochs=2"])


def test_other_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_place(tmp_path / "whole", lambda: session(WORDS))
    assert not in_place(tmp_path / "killed", lambda: session(WORDS, Death(*HALF)))
    assert in_place(tmp_path / "killed", lambda: session(["data.num_workers=1", "trainer.checkpoint_seconds=9.0"]))
    assert differing(outcome(tmp_path / "whole"), outcome(tmp_path / "killed")) == []


def test_all_checkpoints_damaged_is_an_error(killed: Path) -> None:
    for path in find("last", killed / "outputs").checkpoints.glob("*.ckpt"):
        path.write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="damaged"):
        session(WORDS)


def test_slurm_starts_the_job_again_in_the_same_folder(
    killed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find("last", killed / "outputs").update(slurm_job="77_3")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert job() == "77_3"
    assert begun(killed / "outputs") is None, "the first turn"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(WORDS) == 0
    assert len(list((killed / "outputs").glob("2*/*"))) == 1
    assert steps(killed) == list(range(1, 9))


def test_a_job_number_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7; touch x")
    assert job() is None


def test_sigusr1_asks_for_another_turn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("vitexp.run.slurm.ignore", lambda: None)
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    (tmp_path / "scontrol").write_text("#!/bin/sh\ntest $2 = 42\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for number, said in (("42", "is back in the queue"), ("43", "was not put back")):
        monkeypatch.setenv("SLURM_JOB_ID", number)
        with pytest.raises(Interrupted), requeued(True), requeued(True):  # of the command, and of the run it resumes
            raise Interrupted(signal.SIGUSR1)
        assert capsys.readouterr().err.count(said) == 1
    with pytest.raises(Interrupted), requeued(True):
        raise Interrupted(signal.SIGTERM)
    assert not capsys.readouterr().err


def test_what_srun_has_not_started_is_told_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    with requeued(False):
        assert not capsys.readouterr().err
    with requeued(True):
        assert "srun vitexp" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("signals", [[signal.SIGUSR1], [signal.SIGINT, signal.SIGINT]], ids=["USR1", "INT twice"])
def test_a_signal_through_the_command(signals: list[signal.Signals], tmp_path: Path) -> None:
    """SIGUSR1 asks SLURM for another turn; a second Ctrl-C does not wait for a safe point that is far away."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (bin_folder / "scontrol").chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "42"}
    environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
    twice = len(signals) == 2
    slow = ["trainer.accumulate=64", "bs=256", "data.sizes=[256,8,8]", "size=224", "model=vit_b16"] if twice else []
    words = ["data=fake", "epochs=500", "logger=none", "requeue=true", *slow]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitexp", *words], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("outputs/last/metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    for signum in signals:
        process.send_signal(signum)
        time.sleep(0.5)
    start = time.monotonic()
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signals[0], errors
    run = find("last", tmp_path / "outputs")
    assert run.record["state"] == "interrupted"
    assert run.record["slurm_job"] == "42"
    assert (tmp_path / "asked").exists() != twice
    if twice:
        assert time.monotonic() - start < 60
        assert not (run.checkpoints / "last.ckpt").exists(), "no safe point was reached"
    else:
        assert (tmp_path / "asked").read_text() == "requeue 42\n"
        assert "is back in the queue" in errors
