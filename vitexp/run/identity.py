"""The identity of a new run: its command, the code that it runs and the machine that it runs on. No torch here."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from vitexp.machine.cores import usable_cores

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "vitexp")


def identity(argv: Sequence[str]) -> dict[str, Any]:
    """The command, time, code and machine of a new run, as run.json keeps them."""
    commit, dirty = git_state()
    return {
        "schema": 1,
        "argv": ["vitexp", *argv],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "duration_s": 0.0,
        "metrics": {},
        "git_commit": commit,
        "git_dirty": dirty,
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "hardware": hardware(),
        "pid": os.getpid(),
        "host": platform.node(),
    }


def hardware() -> dict[str, Any]:
    """The machine, without asking torch: processor, cores this process may use, system."""
    names = [platform.processor() or platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) or names
    return {"cpu": names[0], "cores": usable_cores(), "system": platform.platform()}


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the code that runs and whether it has changes, or (None, None) outside a checkout."""
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():
        return None, None
    command = ["git", "-C", str(here), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None
    commit = re.search(r"# branch\.oid (\w+)", text)
    return (commit.group(1) if commit else None), any(not line.startswith("#") for line in text.splitlines())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
