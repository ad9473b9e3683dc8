"""`benchmark what=start`: seconds from the prompt to the first training step, beside the imports it cannot avoid.

Both are fresh processes of this interpreter, in turns. The step counts once its row is in the run's metrics.csv; then
the process is ended.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep

from vitexp.command import Command
from vitexp.errors import VitexpError
from vitexp.speed.report import TIMES, Report, milliseconds
from vitexp.timing import summary

IMPORTS = "import torch, pytorch_lightning"
_POLL_S = 0.005


def time_start(command: Command) -> Report:
    """Time the start of the run that the command describes, `benchmark.repeats` times."""
    overrides = [text for text in command.overrides if not text.startswith("benchmark.")]
    imports, ours = f'python -c "{IMPORTS}"', " ".join(["vitexp", *overrides])
    rounds: dict[str, list[float]] = {imports: [], ours: []}
    for index in range(1 + command.cfg.benchmark.repeats):  # the first reads the files from the disk
        seconds = {imports: seconds_of([sys.executable, "-c", IMPORTS]), ours: first_step(overrides)}
        for name in rounds if index else ():
            rounds[name].append(seconds[name])
    timings = summary(rounds)
    ratio = 1 / timings[ours].ratio
    rows = [(name, *milliseconds(timing), round(1 / timing.ratio, 2)) for name, timing in timings.items()]
    columns = ("fresh process, to the end of the import or of the first step", *TIMES, "× import")
    return Report("start", columns, rows, {"first step over import": ratio})


def seconds_of(arguments: list[str]) -> float:
    """Seconds that a process takes from start to end."""
    start = perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def first_step(overrides: list[str]) -> float:
    """Seconds from the start of a `vitexp` process to the row of its first step.

    Raises:
        VitexpError: it ended before that.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, "-m", "vitexp", *overrides, f"outputs={folder}", "trainer.log_every=1"]
        environment = {**os.environ, "WANDB_MODE": "disabled"}
        start = perf_counter()
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        try:
            while process.poll() is None and not _has_row(Path(folder)):
                sleep(_POLL_S)
            seconds = perf_counter() - start
        finally:
            process.kill()
            _, errors = process.communicate()
        if not _has_row(Path(folder)):
            raise VitexpError(f"the run ended before its first step: {errors.decode().strip()}")
        return seconds


def _has_row(folder: Path) -> bool:
    """Whether the run there has logged a step: a second line below the names of the columns."""
    file = folder / "last" / "metrics.csv"
    try:
        return len(file.read_bytes().splitlines()) > 1
    except OSError:
        return False
