"""Toy work in place of training, in the processes that test_loop.py starts; not a test itself."""

import os
import time
from pathlib import Path
from typing import Any

from vitexp.sweep import job
from vitexp.sweep.folder import Job


def work(job: Job) -> dict[str, Any]:
    """Take 50 ms, and as long as the file `hold` lies in the sweep's folder."""
    seed = int(job.record["swept"]["seed"])
    with (job.path / "worked").open("a") as file:
        file.write(f"{os.environ.get('OMP_NUM_THREADS')} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    time.sleep(0.05)
    while (job.path.parent / "hold").exists():
        time.sleep(0.01)
    if (job.path.parent / f"crash{seed}").exists():
        raise RuntimeError("a bug")
    return {"test/top1": 0.1 * seed}


def toy_job(folder: Path) -> int:
    """Run a job, in its process, with toy work."""
    job._work = work
    return job.run_job(folder)
