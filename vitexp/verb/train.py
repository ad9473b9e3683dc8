"""`vitexp [train]`: build everything, then make the run folder, then train."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vitexp import build
from vitexp.callback.embed import require_still
from vitexp.config.command import Command
from vitexp.report.screen import print_notes
from vitexp.run import slurm
from vitexp.run.fit import fit
from vitexp.run.folder import create, working
from vitexp.run.microbatch import find_accumulate, is_auto, require_findable
from vitexp.run.preflight import require_ready
from vitexp.verb.report import reporting
from vitexp.verb.resume import resume


def train(command: Command) -> dict[str, Any]:
    """Train a model and test it once at the end.

    What cannot work (data absent, parts that do not go together, weights that do not fit, devices that are not here)
    is found before the folder is made.
    """
    cfg, notes = command.cfg, list[str]()
    if command.folder is None and (run := slurm.begun(Path(cfg.outputs))) is not None:
        cfg.run = str(run.path)
        return resume(command)
    cut = is_auto(cfg)
    if cut:
        require_findable(cfg)
        cfg.trainer.accumulate = 1
    data = build.build_data(cfg)
    model = build.build_model(cfg, notes=notes)
    if cut:
        cfg.trainer.accumulate = find_accumulate(cfg, model)
        data.batches = replace(data.batches, accumulate=cfg.trainer.accumulate)
    task = build.build_task(cfg, model)
    if cfg.regime.get("cache"):
        require_still(data.augment)
    require_ready(cfg, data, task)
    run = create(cfg, argv=command.argv, overrides=command.overrides, folder=command.folder)
    with reporting(run), working(run, cfg):
        print_notes(notes, quiet=cfg.quiet)
        run.update(classes=list(data.class_names), monitor=list(task.monitor), slurm_job=slurm.job())
        return fit(cfg, run, data, task)
