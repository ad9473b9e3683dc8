"""On a real SLURM: warned before its time is over, a run and a sweep's jobs are saved, queued again and go on.

The warning is sent by `scancel --signal`, as SLURM sends it itself near the end of a job's time, and the job is let out
of the queue at once, where SLURM would keep it for two minutes.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.sweeps import jobs, start, until
from vitexp.run.folder import all_runs

WORDS = ("data=fake", "data.sizes=[256,32,32]", "bs=16", "epochs=60", "logger=none", "trainer.log_every=1")


def ask(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


def works() -> bool:
    return shutil.which("sbatch") is not None and bool(ask("sinfo", "--noheader", "--states=idle,mixed"))


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not works(), reason="no SLURM with a free node here (sinfo)")]


def state(job: str) -> str:
    return ask("squeue", "--noheader", "--format=%T", f"--jobs={job}")


def let_out(job: str) -> None:
    """Shorten the pause of a job that was put back into the queue."""

    def runs() -> bool:
        if state(job) == "PENDING":
            ask("scontrol", "update", f"JobId={job}", "StartTime=now")
        return state(job) == "RUNNING"

    until(runs)


def rows(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in folder.glob("**/metrics.csv"))


def alone(place: Path, *words: str) -> dict[str, object]:
    """The weights of the run that nothing stops."""
    place.mkdir()
    command = [sys.executable, "-m", "vitexp", *WORDS, *words, "quiet=true"]
    subprocess.run(command, cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=600)
    return load_file(place / "outputs" / "last" / "weights.safetensors")


def test_a_job_goes_on_in_its_folder_after_the_warning(tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in WORDS)
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/sh\n#SBATCH --ntasks=1 --time=10 --requeue --open-mode=append --output=job.log\n"
        f"export OMP_NUM_THREADS=1\nsrun {sys.executable} -m vitexp {words} requeue=true\n"
    )
    job = ask("sbatch", "--parsable", f"--chdir={tmp_path}", str(script))
    until(lambda: rows(tmp_path) > 20)
    ask("scancel", "--signal=USR1", job)
    until(lambda: state(job) == "PENDING")
    before = rows(tmp_path)
    let_out(job)
    until(lambda: state(job) in ("", "COMPLETED"))
    log = (tmp_path / "job.log").read_text()
    (run,) = all_runs(tmp_path / "outputs")
    assert run.state == "done", log
    assert f"job {job} is back in the queue" in log
    assert f"resuming {run.name} at step {before - 1}" in log
    assert "Traceback" not in log
    expected, found = alone(tmp_path / "alone"), load_file(run.path / "weights.safetensors")
    assert all((expected[name] == found[name]).all() for name in expected)


@pytest.mark.parametrize("tasks", ["--ntasks=1", "--ntasks-per-node=2"])
def test_two_devices_of_a_job_make_one_run(tasks: str, tmp_path: Path) -> None:
    """`srun` has started a process a device, or one that starts the other, where Lightning itself would use one."""
    devices = ("trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu")
    command = ["srun", "--nodes=1", tasks, "--cpus-per-task=1", sys.executable, "-m", "vitexp"]
    done = subprocess.run(
        [*command, *WORDS, *devices, "epochs=2"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(tmp_path / "outputs")
    assert run.state == "done"
    assert run.record["hardware"]["device"].startswith("cpu (2 processes")
    assert done.stdout.count("vitexp evaluate run=last") == 1


def test_a_job_of_a_sweep_is_saved_before_submitit_queues_it_again(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    more = ("hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10", "hydra.launcher.max_num_timeout=3")
    process = start(tmp_path, *WORDS, "seed=3,4", *more)
    until(lambda: len(jobs(tmp_path)) == 2 and all(rows(job["path"]) > 20 for job in jobs(tmp_path)))
    names = ask("squeue", "--noheader", "--array", "--format=%i", "--name=vitexp").split()
    assert len(names) == 2
    ask("scancel", "--signal=USR2", *names)
    for name in names:
        let_out(name)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert [job["state"] for job in jobs(tmp_path)] == ["done", "done"]
    assert [job["attempts"] for job in jobs(tmp_path)] == [2, 2]
    for job in jobs(tmp_path):
        text = (job["path"] / "output.txt").read_text()
        assert "Traceback" not in text
        assert "at step 0 " not in text.split("resuming")[1]
        expected, found = alone(tmp_path / str(job["number"]), f"seed={job['swept']['seed']}"), job["path"]
        weights = load_file(found / "weights.safetensors")
        assert all((expected[name] == weights[name]).all() for name in expected)
