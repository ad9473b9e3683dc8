"""`vitexp benchmark`: speed as ratios within one run, because the machine's own speed drifts from run to run.

`what=model` times a forward and a training step beside timm's same model, `what=runner` a whole training beside a bare
PyTorch loop, `what=start` the first step of a fresh process beside the imports that it cannot avoid, `what=data`
batches in memory beside a DataLoader that decodes with Pillow, `what=regimes` fine-tuning steps and joined tasks beside
head-only and the base, `what=packing` images of many sizes packed beside padded ones. Each prints a table and returns
its ratios, above 1 where ours is faster; of runner, start and regimes, the ratio is our time over the other's.
"""

from importlib import import_module
from typing import Any

from vitexp.config.command import Command
from vitexp.report.screen import say, show
from vitexp.report.table import value_table

_OF = {
    "model": ("vitexp.benchmark.model", "time_model"),
    "runner": ("vitexp.benchmark.runner", "time_runner"),
    "start": ("vitexp.benchmark.start", "time_start"),
    "data": ("vitexp.benchmark.data", "time_data"),
    "regimes": ("vitexp.benchmark.regimes", "time_regimes"),
    "packing": ("vitexp.benchmark.packing", "time_packing"),
}


def benchmark(command: Command) -> dict[str, Any]:
    """Time `benchmark.what`, show the table, return the ratios by name."""
    module, name = _OF[command.cfg.benchmark.what]
    report = getattr(import_module(module), name)(command)
    if not command.cfg.quiet:
        say(report.title, quiet=False)
        show(value_table(report.columns, report.rows), quiet=False)
    ratios: dict[str, Any] = report.ratios
    return ratios
