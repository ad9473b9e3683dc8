"""Sweeps that survive: what is killed ends alone, the same command does what is left, and nothing is done twice."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps import TOY, finish, in_state, jobs, start, until
from vitexp.run.folder import open_run
from vitexp.sweep.slots import environment

# Long enough to be caught at work, and saved at every safe point.
LONG = (*TOY, "epochs=20", "trainer.checkpoint_seconds=0")


def weights(folder: Path) -> bytes:
    """The tensors of weights.safetensors; its header names the run."""
    return (folder / "weights.safetensors").read_bytes()[-240_000:]


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Ctrl-C with one job done, one at work, one waiting; the resumed job is the one that was never stopped."""
    words = (*TOY, "epochs=2", "data.sizes=[960,32,32]", "trainer.checkpoint_seconds=0", "slots=1", "seed=0,1,2")
    process = start(tmp_path, *words)
    until(lambda: in_state(tmp_path, "done") and (jobs(tmp_path)[1]["path"] / "metrics.csv").exists())
    until(lambda: (jobs(tmp_path)[1]["path"] / "checkpoints" / "last.ckpt").exists())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the same command continues the sweep" in output
    states = [job["state"] for job in jobs(tmp_path)]
    assert states == ["done", "interrupted", "waiting"], output
    first = open_run(jobs(tmp_path)[0]["path"]).record
    code, output = finish(tmp_path, *words)
    assert code == 0, output
    assert "1 of 3 jobs are done" in output
    assert [job["attempts"] for job in jobs(tmp_path)] == [1, 2, 1]
    assert open_run(jobs(tmp_path)[0]["path"]).record == first
    assert "resuming" in (jobs(tmp_path)[1]["path"] / "output.txt").read_text()
    single = [sys.executable, "-m", "vitexp", *(word for word in words if not word.startswith(("seed", "slots")))]
    (tmp_path / "alone").mkdir()
    subprocess.run([*single, "seed=1", "quiet=true"], cwd=tmp_path / "alone", env=environment(), check=True)
    assert weights(jobs(tmp_path)[1]["path"]) == weights(tmp_path / "alone" / "outputs" / "last"), "as if it ran alone"
    with next(tmp_path.glob("outputs/sweeps/*/sweep.csv")).open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done"] * 3


@pytest.mark.slow
def test_eight_jobs_survive_a_crash_a_kill_and_the_death_of_the_sweep(tmp_path: Path) -> None:
    words = (*LONG, "slots=2", "lr=1e-3,2e-3", "seed=0,1,2,3")
    process = start(tmp_path, *words)
    # Job 0 is killed, job 1 crashes, job 5 cannot write its checkpoints; then the sweep dies with two at work.
    until(lambda: len(jobs(tmp_path)) == 8)
    (jobs(tmp_path)[5]["path"] / "checkpoints").write_text("a file where a folder should be")
    for number, signum in ((0, signal.SIGKILL), (1, signal.SIGSEGV)):
        until(lambda number=number: (jobs(tmp_path)[number]["path"] / "checkpoints" / "last.ckpt").exists())
        os.kill(jobs(tmp_path)[number]["pid"], signum)
    until(lambda: len(in_state(tmp_path, "done")) >= 2 and jobs(tmp_path)[5]["state"] == "failed")
    until(lambda: len(in_state(tmp_path, "running")) == 2)
    process.kill()
    process.communicate()
    before = {job["number"]: job for job in jobs(tmp_path) if job["state"] == "done"}
    assert jobs(tmp_path)[0]["state"] == jobs(tmp_path)[1]["state"] == "killed"
    assert "SIGSEGV" in jobs(tmp_path)[1]["reason"]
    (jobs(tmp_path)[5]["path"] / "checkpoints").unlink()
    code, output = finish(tmp_path, *words)
    assert code == 0, output
    after = jobs(tmp_path)
    assert [job["state"] for job in after] == ["done"] * 8
    for number, job in before.items():
        assert after[number] == job, "a finished job is not run again"
    assert after[0]["attempts"] == 2
    assert "resuming" in (after[0]["path"] / "output.txt").read_text()
    # None was computed twice: every job has each of its steps once, and killed ones end as if nothing had happened.
    alone, output = finish(tmp_path, *words, "new=true", "slots=1")
    assert alone == 0, output
    fresh = [job for job in jobs(tmp_path) if job["path"].parent != after[0]["path"].parent]
    assert len(fresh) == 8
    for job, again in zip(after, fresh, strict=True):
        assert weights(job["path"]) == weights(again["path"])
        assert (job["path"] / "metrics.csv").read_text() == (again["path"] / "metrics.csv").read_text()


@pytest.mark.slow
def test_a_job_may_have_several_processes_of_its_own(tmp_path: Path) -> None:
    """DDP inside a job: Lightning repeats the job's command for each further device, which joins the same folder."""
    devices = ("trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu")
    code, output = finish(tmp_path, *TOY, *devices, "trainer.log_every=1", "seed=0,1")
    assert code == 0, output
    assert [job["state"] for job in jobs(tmp_path)] == ["done", "done"]
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"sweeps", "last"}, "no folder of the second"
    assert "2 processes" in (jobs(tmp_path)[0]["path"] / "output.txt").read_text()
    with (jobs(tmp_path)[1]["path"] / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 7))
