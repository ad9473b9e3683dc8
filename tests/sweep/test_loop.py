"""The loop over real processes with toy work in place of training: crashes, kills, Ctrl-C, the death of the sweep."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tests.sweep.toy import toy_job
from tests.sweeps import in_state, jobs, until
from vitexp.config.compose import compose
from vitexp.errors import Interrupted
from vitexp.report.sweep_screen import SweepScreen
from vitexp.sweep.folder import FINISHED, Sweep, create_sweep, find_sweep
from vitexp.sweep.loop import Listed, run_all
from vitexp.sweep.plan import Planned
from vitexp.sweep.slots import Share, Slots, environment


def sweep_of(folder: Path, count: int) -> Sweep:
    sweep = find_sweep(folder / "outputs", "here")
    if sweep is None:
        sweep = create_sweep(folder / "outputs", identity="here", verb="train", argv=[])
        cfg = compose(["data=fake"])
        for seed in range(count):
            cfg.seed = seed
            sweep.add(Planned((), {"seed": str(seed)}, cfg))
    return sweep


def run(sweep: Sweep, *, slots: int = 2) -> None:
    left = [job for job in sweep.jobs if job.state not in FINISHED]
    screen = SweepScreen(title="", slots=slots, quiet=True)
    shares = [Share(1, str(slot)) for slot in range(slots)]
    with Slots(shares, work=toy_job) as server:
        run_all(Listed(left), server, screen, list)


def states(folder: Path) -> list[str]:
    return [job["state"] for job in jobs(folder)]


def worked(folder: Path) -> list[int]:
    return [len((job["path"] / "worked").read_text().splitlines()) for job in jobs(folder)]


def test_a_crash_ends_one_job_and_the_rest_is_done_once(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, 4)
    (sweep.path / "crash1").touch()
    run(sweep)
    assert states(tmp_path) == ["done", "failed", "done", "done"]
    assert jobs(tmp_path)[1]["reason"] == "RuntimeError: a bug"
    assert "Traceback" in (jobs(tmp_path)[1]["path"] / "output.txt").read_text()
    assert {line for job in jobs(tmp_path) for line in (job["path"] / "worked").read_text().splitlines()} == {
        "1 0",
        "1 1",
    }, "each slot has its own share"
    (sweep.path / "crash1").unlink()
    sweep.release()
    run(sweep_of(tmp_path, 4))
    assert states(tmp_path) == ["done"] * 4
    assert worked(tmp_path) == [1, 2, 1, 1]
    assert jobs(tmp_path)[3]["metrics"] == {"test/top1": pytest.approx(0.3)}


def test_a_later_sweep_of_the_same_process_has_its_own_environment(tmp_path: Path, monkeypatch) -> None:
    """The server is one for all of them; a rank that it once knew would make every later job a helper that waits."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    forkserver._forkserver._stop()
    with Slots([Share(1, None)]):
        monkeypatch.delenv("LOCAL_RANK")
        sweep = sweep_of(tmp_path, 1)
        run(sweep, slots=1)
    assert states(tmp_path) == ["done"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGUSR1])
def test_killed_and_interrupted_jobs_say_so(signum: signal.Signals, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, 3)
    (sweep.path / "hold").touch()

    def disturb() -> None:
        try:
            until(lambda: len(in_state(tmp_path, "running")) == 2, seconds=20)
            os.kill(jobs(tmp_path)[0]["pid"], signal.SIGKILL)
            until(lambda: jobs(tmp_path)[2]["state"] == "running", seconds=20)
        finally:
            os.kill(os.getpid(), signum)

    thread = threading.Thread(target=disturb)
    thread.start()
    with pytest.raises(Interrupted) as stopped:
        run(sweep)
    thread.join()
    assert stopped.value.exit_code == 128 + signum
    assert states(tmp_path) == ["killed", "interrupted", "interrupted"]
    assert jobs(tmp_path)[0]["reason"] == "killed by SIGKILL (out of memory?)"
    assert [job["exit_code"] for job in jobs(tmp_path)] == [137, 128 + signum, 128 + signum]


def test_jobs_stop_when_the_sweep_dies_and_the_next_one_waits_for_them(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, 2)
    (sweep.path / "hold").touch()
    code = f"import sys; sys.path[:0] = {sys.path!r}; import tests.sweep.test_loop as t; from pathlib import Path; "
    code += f"t.run(t.sweep_of(Path({str(tmp_path)!r}), 2))"
    sweep.release()
    process = subprocess.Popen([sys.executable, "-c", code], env=environment())
    until(lambda: len(in_state(tmp_path, "running")) == 2)
    process.kill()
    process.wait()
    until(lambda: states(tmp_path) == ["interrupted"] * 2, seconds=20)
    again = sweep_of(tmp_path, 2)
    lock = again.jobs[0].lock()
    assert lock.acquire()  # as if the first were still saving itself
    (again.path / "hold").unlink()
    threading.Timer(0.5, lock.release).start()
    start = time.monotonic()
    run(again)
    assert time.monotonic() - start > 0.4
    assert states(tmp_path) == ["done"] * 2
    assert worked(tmp_path) == [2, 2]
