"""A run of two processes: one folder, one voice, metrics of all images, whoever starts the processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitexp.cli import main
from vitexp.machine import rank as process
from vitexp.run.folder import all_runs

# With batch norms and an average of the weights: what one process might have otherwise than the other.
WORDS = [
    *("model=vit_nano", "data=fake", "size=16", "data.sizes=[48,17,17]", "bs=8", "epochs=2", "logger=none"),
    *("trainer.ema=0.9", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"),
]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29517", "-m"]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "MASTER_")) or name.endswith(("RANK", "WORLD_SIZE")):
            monkeypatch.delenv(name)
    return monkeypatch


STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
ELASTIC = {"TORCHELASTIC_RUN_ID": "a/b", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}


@pytest.mark.parametrize(
    ("given", "first", "started", "named"),
    [
        ({}, True, None, None),
        ({"LOCAL_RANK": "1"}, False, None, None),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False, None, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, True, None, None),
        (STEP, False, 2, "srun-7-3-0"),
        (ELASTIC, True, 3, f"torchrun-{os.getppid()}-a_b--"),
    ],
    ids=["alone", "by Lightning", "by Lightning on SLURM", "in a batch script", "by srun", "by torchrun"],
)
def test_who_started_the_processes(
    given: dict[str, str], first: bool, started: int | None, named: str | None, variables: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        variables.setenv(name, value)
    assert process.is_first() == first
    assert process.started() == started
    assert process.meeting() == named


def test_a_sweep_is_started_once(
    variables: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variables.chdir(tmp_path)
    for name, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}.items():
        variables.setenv(name, value)
    assert main(["-m", "seed=0,1"]) == 2
    assert "start one" in capsys.readouterr().err
    assert main(["trainer.devices=1", "trainer.accelerator=cpu", "data=fake", "size=16", "model=vit_nano"]) == 2
    assert "trainer.devices=2" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


STALE = [
    ({"LOCAL_RANK": "3"}, "LOCAL_RANK=3 is set", "unset LOCAL_RANK"),
    ({"RANK": "1", "WORLD_SIZE": "2"}, "RANK=1 is set", "unset RANK WORLD_SIZE"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set", "unset WORLD_SIZE"),
    ({"RANK": "abc"}, "RANK=abc is set", "unset RANK"),
    ({"TORCHELASTIC_RUN_ID": "x"}, "TORCHELASTIC_RUN_ID is set", "unset TORCHELASTIC_RUN_ID"),
    (
        {
            **ELASTIC,
            "LOCAL_WORLD_SIZE": "999",
            "RANK": "0",
            "WORLD_SIZE": "999",
            "MASTER_ADDR": "h",
            "MASTER_PORT": "1",
        },
        "LOCAL_WORLD_SIZE=999",
        "unset TORCHELASTIC_RUN_ID LOCAL_RANK",
    ),
    ({"SLURM_STEP_NUM_TASKS": "abc"}, "SLURM_STEP_NUM_TASKS=abc", "unset SLURM_STEP_NUM_TASKS"),
    ({"SLURM_STEP_NUM_TASKS": "2"}, "without SLURM_PROCID", "unset SLURM_STEP_NUM_TASKS"),
    ({"SLURM_PROCID": "abc"}, "SLURM_PROCID=abc", "unset SLURM_PROCID"),
    ({**STEP, "SLURM_STEP_NUM_NODES": "one"}, "SLURM_STEP_NUM_NODES=one", "unset SLURM_STEP_NUM_NODES"),
]


@pytest.mark.parametrize(("given", "said", "advice"), STALE, ids=lambda value: " ".join(value))
def test_variables_of_a_launcher_that_did_not_start_this_name_themselves(
    given: dict[str, str],
    said: str,
    advice: str,
    variables: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They ended in a wait without end, or as a bug."""
    variables.chdir(tmp_path)
    variables.delenv("VITEXP_FIRST", raising=False)
    for name, value in given.items():
        variables.setenv(name, value)
    assert main(["data=fake", "epochs=1"]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert advice in message
    assert not list(tmp_path.iterdir())


def test_the_address_of_another_machine_is_no_place_to_meet(
    variables: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variables.chdir(tmp_path)
    variables.setenv("MASTER_ADDR", "10.9.8.7")
    assert main(WORDS) == 2
    assert "MASTER_ADDR=10.9.8.7 is set" in capsys.readouterr().err


def test_a_process_by_itself_may_be_told_so(variables: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}.items():
        variables.setenv(name, value)
    process.follow_first()


def run(place: Path, *command: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=place, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_make_one_run_that_evaluates_to_its_own_metrics(tmp_path: Path) -> None:
    """17 images to test: what a process has to repeat does not count."""
    said = run(tmp_path, "-m", "vitexp", *WORDS)
    assert said.count("vitexp evaluate run=last") == 1
    (first,) = all_runs(tmp_path / "outputs")
    assert first.state == "done"
    assert first.record["hardware"]["device"].startswith("cpu (2 processes")
    for devices in ("2", "1"):
        said = run(tmp_path, "-m", "vitexp", "evaluate", "run=last", f"trainer.devices={devices}")
        assert said.count("test/top1") == 1
        (file,) = first.path.glob("evaluations/*/evaluation.json")
        for name, value in json.loads(file.read_text())["metrics"].items():
            assert first.record["metrics"][name] == pytest.approx(value, rel=1e-5), (devices, name)
    run(tmp_path, *TORCHRUN, "vitexp", *WORDS)
    _, second = all_runs(tmp_path / "outputs")
    for name, value in first.record["metrics"].items():
        assert second.record["metrics"][name] == pytest.approx(value, rel=1e-5), name
    assert not list((tmp_path / "outputs").glob(".*"))
