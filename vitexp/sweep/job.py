"""One frozen job in a process of its own: run it, continue it, or find it finished; its job.json says how it ended.

`python -m vitexp.sweep.job FOLDER` runs one alone: what submitit starts on other machines, and what Lightning
repeats for each device of a distributed job.
"""

import os
import platform
import shutil
import signal
import sys
import time
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

from vitexp.config.command import Command, call
from vitexp.config.compose import register
from vitexp.errors import Ending, Interrupted, VitexpError, behind, ending
from vitexp.files.folder import Folder
from vitexp.machine.rank import end_with_parent, follow_first, is_first
from vitexp.machine.signals import ignore, install
from vitexp.run.folder import open_run
from vitexp.sweep.folder import FINISHED, FROZEN, OUTPUT, STATE, Job

# Of the job itself; everything else in its folder is the verb's.
_OURS = (FROZEN, STATE, ".job.lock", OUTPUT)
BUSY = 75  # exit code of a second process for the same job, as BSD's EX_TEMPFAIL


def run_job(folder: Path) -> int:
    """Run the job in `folder` and return its exit code; job.json has the state, the reason and the metrics."""
    job = Job(folder)
    if not is_first():  # another device of the same job
        install()
        follow_first()
        _work(job)
        return 0
    lock = job.lock()
    if not lock.acquire():
        print(f"vitexp: job {job.label} is run by process {job.record.get('pid')} already", file=sys.stderr)
        return BUSY
    try:
        job.reload()
        return 0 if job.state in FINISHED else _run(job)
    finally:
        lock.release()


def _run(job: Job) -> int:
    start = time.perf_counter()
    end, found = Ending(), dict[str, Any]()
    try:
        install()
        follow_first()
        resumes = _begun(job)
        if not resumes and job.folder.holds("run.json"):
            _clear(job.folder)
        job.update(
            state="running",
            resumes=resumes,
            pid=os.getpid(),
            host=platform.node(),
            attempts=job.record["attempts"] + 1,
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
        )
        found["metrics"] = _work(job)
    except (Exception, Interrupted) as error:  # noqa: BLE001  (a bug ends this job, not the sweep)
        end = ending(error)
        if behind(error) is None and not isinstance(error, VitexpError):
            traceback.print_exc()
        else:
            print(f"vitexp: {end.reason}", file=sys.stderr)
    ignore()  # the end is near: nothing may keep it from the record
    seconds = job.record["seconds"] + time.perf_counter() - start
    job.update(**vars(end), **found, seconds=round(seconds, 3))
    return end.exit_code


def _work(job: Job) -> dict[str, Any]:
    """The rest of a run, or all of it, as `resumes` says."""
    register()
    verb, cfg, argv = job.record["verb"], job.config(), job.record["argv"]
    if job.record.get("resumes", False):
        cfg.run = str(job.path)
        return call("resume", Command(cfg, [], argv))
    return call(verb, Command(cfg, job.record["overrides"], argv, folder=job.path))


def _begun(job: Job) -> bool:
    """Whether there is a run to go on with: it is finished, or has a checkpoint."""
    if job.record["verb"] != "train" or not job.folder.holds("run.json"):
        return False
    done = open_run(job.folder).record.get("state") == "done"
    return done or any(name.endswith(".ckpt") for name in job.folder.sub("checkpoints").entries())


def _clear(folder: Folder) -> None:
    """Take away what an attempt left that cannot be continued."""
    for name, kind in folder.entries().items():
        if name in _OURS or name.startswith("."):
            continue
        if kind == "folder":
            shutil.rmtree(folder.path / name)
        else:
            folder.remove(name)


if __name__ == "__main__":
    end_with_parent()
    # On a cluster submitit's process takes this one as the warning before the end, and queues the job again.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    sys.exit(run_job(Path(sys.argv[1])))
