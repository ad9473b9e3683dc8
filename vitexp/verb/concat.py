"""`vitexp concat adapters=[run_a,run_b] checkpoint=base.safetensors`: several trained memories in one model, as a run.

The run folder holds the adapters, not the base. `evaluate run=last` and `predict run=last` answer for all tasks.
"""

import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vitexp import build
from vitexp.checkpoint.adapter import Adapter
from vitexp.checkpoint.read import read_classes
from vitexp.config.command import Command
from vitexp.config.compose import compose
from vitexp.report.metrics import TEST_TOP1
from vitexp.report.screen import print_notes, say, show
from vitexp.report.table import value_table
from vitexp.run.adapters import CONCAT, find_adapters, task_names
from vitexp.run.folder import Run, create, working
from vitexp.run.reopen import rules_of

_FOLDER = "adapters"


def concat(command: Command) -> dict[str, Any]:
    """Make the run folder of the joined model; nothing trains.

    Raises:
        ConfigError: no adapters, or of a regime that changes the base.
        CheckpointError: adapters that differ in base, size, normalisation or flags, or another base than theirs.
    """
    adapters = find_adapters(list(command.cfg.adapters), Path(command.cfg.outputs))
    names, cfg = task_names(adapters), _configuration(command, adapters)
    notes: list[str] = []
    model: Any = build.build_model(cfg, notes=notes)
    print_notes(notes, quiet=cfg.quiet)
    run = create(cfg, argv=command.argv, overrides=command.overrides, folder=command.folder)
    with working(run, cfg):
        _keep(run, cfg, adapters, names)
        run.update(tasks=names)
    added = sum(parameter.numel() for parameter in model.tasks.parameters())
    base = sum(parameter.numel() for parameter in model.base.parameters())
    rows = [_row(name, adapter) for name, adapter in zip(names, adapters, strict=True)]
    show(value_table(["task", "classes", "memory a layer", "parameters", f"alone {TEST_TOP1}"], rows), quiet=cfg.quiet)
    say(f"{len(names)} tasks: {added:,} parameters beside the base's {base:,}", quiet=cfg.quiet)
    say(f"{run.path}; vitexp evaluate run=last, vitexp predict run=last image=FILE", quiet=cfg.quiet)
    return {"tasks": len(names), "parameters": added}


def _configuration(command: Command, adapters: list[Adapter]) -> DictConfig:
    """The configuration of the first adapter's run with the regime `concat` and this command's base and place."""
    cfg = rules_of(adapters[0])
    for key in ("outputs", "name", "quiet", "trust"):
        cfg[key] = command.cfg[key]
    cfg.checkpoint = command.cfg.checkpoint or cfg.checkpoint
    cfg.regime = compose([f"regime={CONCAT}"]).regime
    cfg.regime.adapters = [str(adapter.path.resolve()) for adapter in adapters]
    cfg.chosen.regime = CONCAT
    if (classes := read_classes(cfg.checkpoint)) is not None:
        cfg.model.num_classes = len(classes)  # so that the base keeps its own head, and answers too
    return cfg


def _keep(run: Run, cfg: DictConfig, adapters: list[Adapter], names: list[str]) -> None:
    """Copy the adapters into the run's folder, and name them there."""
    folder = run.folder.sub(_FOLDER).made()
    for name, adapter in zip(names, adapters, strict=True):
        with folder.writing(f"{name}.safetensors") as part:
            shutil.copyfile(adapter.path, part)
    cfg.regime.adapters = [f"{_FOLDER}/{name}.safetensors" for name in names]
    run.keep_config(cfg)


def _row(name: str, adapter: Adapter) -> tuple[object, ...]:
    (memory,) = (tensor for key, tensor in adapter.tensors.items() if key.endswith(".memory"))
    count = sum(tensor.numel() for tensor in adapter.tensors.values())
    classes = len(adapter.about["classes"])
    return (name, classes, memory.shape[1], count, adapter.about["metrics"].get(TEST_TOP1))
