"""`vitexp [train]`: build everything, then make the run folder, then train."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from vitexp import build
from vitexp.callback.embed import require_still
from vitexp.config.command import Command
from vitexp.errors import ConfigError
from vitexp.report.screen import print_notes
from vitexp.run import slurm
from vitexp.run.fit import fit
from vitexp.run.folder import create, working
from vitexp.run.microbatch import find_accumulate
from vitexp.run.same_data import keep_data
from vitexp.verb.measure import watch
from vitexp.verb.prepare import prepare
from vitexp.verb.report import reporting
from vitexp.verb.resume import resume

AUTO = "auto"


def train(command: Command) -> dict[str, Any]:
    """Train a model and test it once at the end.

    What cannot work (data absent, parts that do not go together, weights that do not fit, devices that are not here)
    is found before the folder is made.
    """
    cfg, notes = command.cfg, list[str]()
    if command.folder is None and (run := slurm.begun(Path(cfg.outputs))) is not None:
        cfg.run = str(run.path)
        return resume(command)
    cut = cfg.trainer.accumulate == AUTO
    if cut:
        require_findable(cfg)
        cfg.trainer.accumulate = 1
    data = build.build_data(cfg)
    model = build.build_model(cfg, notes=notes)
    if cut:
        shape = (data.channels, data.image_size, data.image_size)
        averaged, batch = cfg.trainer.ema is not None, cfg.data.batch_size
        found = find_accumulate(model, shape, batch=batch, averaged=averaged, device=build.device_of(cfg))
        cfg.trainer.accumulate = found
        data.batches = replace(data.batches, accumulate=found)
    if cfg.regime.get("cache"):
        require_still(data.augment)
    training, analysis = prepare(cfg, data, model), build.build_analysis(cfg)
    run = create(cfg, argv=command.argv, overrides=command.overrides, folder=command.folder)
    with reporting(run), working(run, cfg):
        print_notes(notes, quiet=cfg.quiet)
        run.update(classes=list(data.class_names), monitor=list(training.task.monitor), slurm_job=slurm.job())
        keep_data(run, data)
        return dict(fit(training, run, looks=watch(cfg, run, data, analysis)))


def require_findable(cfg: DictConfig) -> None:
    """Raise ConfigError unless the steps of the run are those that `find_accumulate` can foresee."""
    sampler, several = cfg.data.get("sampler", "fixed"), cfg.trainer.devices not in (AUTO, 1)
    if several or torch.cuda.device_count() > 1:
        raise ConfigError(
            "bs=auto looks at the memory of one device, and the run has several; use trainer.devices=1, or give the "
            "number of micro-batches: trainer.accumulate=4"
        )
    if sampler != "fixed" or cfg.chosen.task != "classify":
        raise ConfigError(
            f"bs=auto foresees steps of equal images, and task={cfg.chosen.task} data.sampler={sampler} has others; "
            "give the number of micro-batches: trainer.accumulate=4"
        )
