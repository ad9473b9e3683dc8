"""A run as a SLURM job: stopped before its time is over, put back into the queue, continued in the same folder.

`#SBATCH --signal=USR1@120 --requeue` lets SLURM send SIGUSR1 to what `srun` started two minutes before the end;
`requeue=true` then asks for another turn. A job that SLURM starts again is known by its number, so the same command
goes on with the run it began.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitexp.errors import Interrupted
from vitexp.machine.rank import is_first
from vitexp.machine.signals import ignore
from vitexp.run.folder import Run, all_runs


def job() -> str | None:
    """The number of the SLURM job that this process is, `_` and its place in an array; None elsewhere."""
    number = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID", "")
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{number}_{task}" if task else number
    return name if re.fullmatch(r"\d+(_\d+)?", name) else None


def begun(outputs: Path) -> Run | None:
    """The run that an earlier turn of this job began; None in its first turn."""
    name = job()
    if name is None or os.environ.get("SLURM_RESTART_COUNT", "0") in ("", "0"):
        return None
    return next((run for run in reversed(all_runs(outputs)) if run.record.get("slurm_job") == name), None)


@contextmanager
def requeued(wanted: bool) -> Iterator[None]:
    """Around a command: when SIGUSR1 has stopped it and all is saved, ask for another turn, once."""
    wanted = wanted and is_first()
    if wanted and job() is not None and "SLURM_STEP_ID" not in os.environ:
        print(
            "vitexp: requeue=true waits for a signal that SLURM sends only to what srun starts: write srun vitexp ...,"
            " or exec vitexp ... with --signal=B:USR1@120",
            file=sys.stderr,
        )
    try:
        yield
    except Interrupted as stopped:
        if wanted and stopped.signum == signal.SIGUSR1 and not stopped.requeued:
            stopped.requeued = True
            ignore()  # SLURM ends what it has put back, and nothing is left to save
            print(f"vitexp: {requeue()}", file=sys.stderr)
        raise


def requeue() -> str:
    """Ask SLURM for another turn; what to tell the user."""
    name = job()
    if name is None:
        return "requeue=true, but this is no SLURM job"
    try:
        done = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"job {name} could not be put back into the queue ({error})"
    if done.returncode:
        return f"job {name} was not put back into the queue: {done.stderr.strip() or done.returncode}"
    return f"job {name} is back in the queue and will go on in the same folder"
