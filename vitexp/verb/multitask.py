"""`evaluate` and `predict` for a run of several tasks (`vitexp concat`): all of them, in one model."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from vitexp import build
from vitexp.callback.progress import Progress
from vitexp.checkpoint.adapter import Adapter, read_adapter
from vitexp.checkpoint.read import read_classes
from vitexp.config.command import Command
from vitexp.errors import CheckpointError, ConfigError
from vitexp.report.metrics import TEST_TOP1
from vitexp.report.screen import print_notes, say, show
from vitexp.report.table import predictions_table, value_table
from vitexp.run.adapters import CONCAT
from vitexp.run.folder import Run, find
from vitexp.run.reopen import reopen, rules_of
from vitexp.verb.predictions import ranked, write_predictions

# What may differ from how the tasks were trained, when all are evaluated.
ALLOWED = ("trainer.", "precision", "compile", "fuse", "checkpoint")


def joined_run(command: Command) -> Run | None:
    """The run of several tasks that a command is about; None if it is about another run, or none."""
    if command.cfg.run is None:
        return None
    run = find(command.cfg.run, Path(command.cfg.outputs))
    return run if run.record.get("chosen", {}).get("regime") == CONCAT else None


def evaluate_joined(command: Command, run: Run) -> dict[str, Any]:
    """Test each task on its own data; one table with the difference to the model that was trained for it alone."""
    cfg, adapters, model = _open(command, run, allowed=ALLOWED, verb="evaluate")
    rows, metrics = [], dict[str, float]()
    for index, (name, adapter) in enumerate(zip(model.names, adapters, strict=True)):
        model.selected = index
        found, images = _test(cfg, adapter, model, run)
        metrics |= {f"{name}/{key}": value for key, value in found.items()}
        alone = adapter.about["metrics"].get(TEST_TOP1)
        difference = None if alone is None else found[TEST_TOP1] - alone
        rows.append((name, images, found[TEST_TOP1], alone, difference))
    where = run.folder.sub("evaluations").made()
    where.write_json("tasks.json", {"checkpoint": cfg.checkpoint, "metrics": metrics})
    columns = ["task", "images", TEST_TOP1, "alone", "difference"]
    say(f"{run.name}: {len(rows)} tasks in one model", quiet=cfg.quiet)
    show(value_table(columns, rows), quiet=cfg.quiet)
    return metrics


def predict_joined(command: Command, run: Run, paths: list[Path], *, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Label images for all tasks, and for the base if its classes are known, in one pass; `predictions.csv`."""
    cfg, adapters, model = _open(command, run, allowed=allowed, verb="predict")
    classes = {name: adapter.about["classes"] for name, adapter in zip(model.names, adapters, strict=True)}
    if (own := read_classes(cfg.checkpoint)) is not None:
        classes[""] = own
    data = build.make(rules_of(adapters[0]).data.module, trust=cfg.trust)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in classes}
    for start in range(0, len(paths), cfg.data.batch_size):
        part = paths[start : start + cfg.data.batch_size]
        with torch.inference_mode():
            answers = model.answers(torch.stack([data.read_image(path) for path in part]), base=own is not None)
        for name in classes:
            rows[name] += ranked(answers[name].float().softmax(1), part, classes[name])
    write_predictions(run.folder, {name or "base": found for name, found in rows.items()})
    for name, found in rows.items():
        show(predictions_table(found, title=name or "base"), quiet=cfg.quiet)
    return {"images": len(paths)}


def _open(command: Command, run: Run, *, allowed: tuple[str, ...], verb: str) -> tuple[DictConfig, list[Adapter], Any]:
    """Configuration, adapters and model of a run of several tasks, the model ready to evaluate."""
    cfg = reopen(run, command.overrides, command.cfg, allowed=allowed, verb=verb)
    cfg.regime.adapters = [str(_kept(run, str(name))) for name in cfg.regime.adapters]
    notes: list[str] = []
    model: Any = build.build_model(cfg, notes=notes).eval()
    print_notes(notes, quiet=cfg.quiet)
    build.switches(cfg, model, inference=True)
    return cfg, [read_adapter(path) for path in cfg.regime.adapters], model


def _kept(run: Run, place: str) -> Path:
    """An adapter in the run's folder, which `place` is relative to."""
    try:
        *folders, name = Path(place).parts
        return run.folder.sub(*folders).require(name)
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{run.path} has no adapter {place}; copy the run again") from None


def _test(cfg: DictConfig, adapter: Adapter, model: Any, run: Run) -> tuple[dict[str, float], int]:
    """Metrics of the selected task on the data that it was trained for, and the number of images."""
    own = rules_of(adapter)
    own.trust = cfg.trust
    own.trainer, own.precision = cfg.trainer, cfg.precision
    own.trainer.devices, own.trainer.strategy = 1, "auto"  # several tests in one process, one after the other
    data = build.build_data(own)
    if list(data.class_names) != adapter.about["classes"]:
        raise ConfigError(
            f"data={own.chosen.data} has other classes now than {adapter.path} was trained on; give back its files"
        )
    task = build.build_task(own, model).eval()
    trainer = build.build_trainer(own, folder=run.path, callbacks=[Progress(quiet=cfg.quiet)])
    trainer.test(task, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}, data.test_size
