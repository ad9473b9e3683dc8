"""Sweeps of toy jobs as a user runs them, in a process that can be killed; not a test itself."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOY = ("data=fake", "data.sizes=[96,32,32]", "epochs=1", "bs=16", "logger=none")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`vitexp -m words` in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "vitexp", "-m", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of a whole sweep."""
    process = start(folder, *words)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def jobs(folder: Path) -> list[dict[str, Any]]:
    """job.json of every job under `folder`, with its folder as `path`, by number."""
    files = sorted(folder.glob("outputs/sweeps/*/*/job.json"))
    found = [{**json.loads(file.read_text()), "path": file.parent} for file in files]
    return sorted(found, key=lambda job: job["number"])


def until(condition: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def in_state(folder: Path, state: str) -> list[dict[str, Any]]:
    """The jobs in a state."""
    return [job for job in jobs(folder) if job["state"] == state]
