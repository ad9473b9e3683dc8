"""`benchmark what=start`: seconds from the prompt to the first training step and to answers that train nothing.

The step stands beside the imports it cannot avoid, the answers beside importing Hydra and composing the same files.
All are fresh processes of this interpreter, in turns. The step counts once its row is in the run's metrics.csv; then
the process is ended.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter, sleep

from vitexp.benchmark.report import TIMES, Report, milliseconds
from vitexp.benchmark.timing import Timing, summary
from vitexp.config.command import Command
from vitexp.config.compose import conf_dir
from vitexp.errors import VitexpError

IMPORTS = "import torch, pytorch_lightning"
# What any Hydra application does before its own work: importing Hydra, registering a schema, composing the files.
COMPOSING = (
    "import sys, hydra; from vitexp.config.compose import register; register();"
    "from vitexp.config.releases import VERSION_BASE as base;"
    "hydra.initialize_config_dir(sys.argv[1], **base); hydra.compose('config')"
)
ANSWERS = ("--help", "--cfg job", "list models", "list runs", "modle=vit_s16", "lr=abc")
_POLL_S = 0.005


def time_start(command: Command) -> Report:
    """Time the start of the run that the command describes, and the answers, `benchmark.repeats` times."""
    overrides = [text for text in command.overrides if not text.startswith("benchmark.")]
    repeats = command.cfg.benchmark.repeats
    ours = " ".join(["vitexp", *overrides])
    start = _in_turns(
        {
            f'python -c "{IMPORTS}"': lambda: seconds_of([sys.executable, "-c", IMPORTS]),
            ours: lambda: first_step(overrides),
        },
        repeats,
    )
    prompt = _in_turns(
        {"composing by Hydra alone": lambda: seconds_of([sys.executable, "-c", COMPOSING, str(conf_dir())])}
        | {f"vitexp {words}": partial(_answer, words) for words in ANSWERS},
        repeats,
    )
    rows = [
        (name, *milliseconds(timing), round(1 / timing.ratio, 2))
        for group in (start, prompt)
        for name, timing in group.items()
    ]
    answers = {f"{name} over composing": 1 / timing.ratio for name, timing in list(prompt.items())[1:]}
    columns = ("fresh process, to its end or to the first step", *TIMES, "× first of its kind")
    return Report("start", columns, rows, {"first step over import": 1 / start[ours].ratio, **answers})


def _in_turns(work: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Timing]:
    """Each contender once a round; a first round, which reads the files from the disk, does not count."""
    rounds: dict[str, list[float]] = {name: [] for name in work}
    for index in range(1 + repeats):
        for name, seconds in work.items():
            took = seconds()
            if index:
                rounds[name].append(took)
    return summary(rounds)


def _answer(words: str) -> float:
    """Seconds that a command takes which trains nothing: help, a list, a mistake."""
    return seconds_of([sys.executable, "-m", "vitexp", *words.split()], codes=(0, 2))


def seconds_of(arguments: list[str], codes: Collection[int] = (0,)) -> float:
    """Seconds that a process takes from start to end.

    Raises:
        VitexpError: it ended with an exit code that is not one of `codes`.
    """
    start = perf_counter()
    ended = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = perf_counter() - start
    if ended.returncode not in codes:
        raise VitexpError(f"{' '.join(arguments)} ended with {ended.returncode}: {ended.stderr.decode().strip()}")
    return seconds


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
