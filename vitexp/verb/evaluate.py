"""`vitexp evaluate run=last`, or `model=... checkpoint=... data=...`: test weights, here or elsewhere."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp import build
from vitexp.callback.box_pictures import pictures_of
from vitexp.callback.progress import Progress
from vitexp.checkpoint.adapter import ADAPTER, is_adapter
from vitexp.checkpoint.safe_io import BEST, SafeCheckpointIO, newest
from vitexp.config.command import Command
from vitexp.errors import CheckpointError, ConfigError
from vitexp.files.folder import Folder, as_name
from vitexp.files.record import Evaluation, parse
from vitexp.report.screen import print_metrics, print_notes
from vitexp.run.fit import WEIGHTS
from vitexp.run.folder import Run, find
from vitexp.run.reopen import reopen
from vitexp.run.same_data import changes
from vitexp.verb.evaluate_sizes import evaluate_sizes
from vitexp.verb.multitask import evaluate_joined, joined_run

ALLOWED = ("data", "data.", "logger", "trainer.", "precision", "compile", "fuse", "select", "checkpoint", "sizes")


def evaluate(command: Command) -> dict[str, Any]:
    """Test once; prints the metrics and writes them beside the run (`evaluations/<data>-<size>/evaluation.json`).

    Raises:
        ConfigError: neither a run nor a checkpoint, or data with other classes.
        CheckpointError: the run has no weights yet.
    """
    if command.cfg.run is None and command.cfg.checkpoint is None:
        raise ConfigError("evaluate needs weights; give run=last (or a run's name), or model=... checkpoint=FILE")
    if (joined := joined_run(command)) is not None:
        return evaluate_joined(command, joined)
    run, cfg = open_for(command, allowed=ALLOWED, verb="evaluate")
    if command.cfg.sizes:
        return evaluate_sizes(cfg, command.cfg.sizes, _folder(run, cfg, ".sizes"))
    notes: list[str] = []
    data = build.build_data(cfg)
    if run is not None:
        require_classes(run, cfg, data)
        if cfg.chosen.data == run.record["chosen"]["data"] and (other := changes(run, data, "test")):
            notes.append(f"the data is not what run {run.name} had: {'; '.join(other)}")
    task = build.build_task(cfg, build.build_model(cfg, notes=notes, new_head=False))
    print_notes(notes, quiet=cfg.quiet)
    where = _folder(run, cfg)
    pictures = pictures_of(cfg.chosen.task)
    callbacks = [pictures, Progress(quiet=cfg.quiet)]
    trainer = build.build_trainer(cfg, folder=where.path, callbacks=callbacks)
    build.switches(cfg, task.model, inference=True)
    trainer.test(task, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if not trainer.is_global_zero:
        return metrics
    pictures.draw(where.made().path, data)
    scores = zip(data.class_names, task.per_class.tolist(), strict=True)
    per_class = {name: score for name, score in scores if not math.isnan(score)}  # of classes that the data has
    record = {"checkpoint": cfg.checkpoint, "data": cfg.chosen.data, "metrics": metrics, "per_class": per_class}
    record["notes"] = notes  # of tensors that were adapted on loading, of data that has changed since the training
    where.write_json("evaluation.json", parse(Evaluation, record, source="evaluation.json"))
    if not cfg.quiet:
        print_metrics(f"{cfg.chosen.model} on {cfg.chosen.data}: {data.test_size} images", metrics, where.path)
    return metrics


def open_for(command: Command, *, allowed: tuple[str, ...], verb: str) -> tuple[Run | None, DictConfig]:
    """The run that a verb is about, its configuration with its weights in it; or None and the command's."""
    if command.cfg.run is None:
        return None, command.cfg
    run = find(command.cfg.run, Path(command.cfg.outputs))
    cfg = reopen(run, command.overrides, command.cfg, allowed=allowed, verb=verb)
    trained_on(run, cfg)
    return run, cfg


def trained_on(run: Run, cfg: DictConfig) -> None:
    """Enter a run's weights into its configuration: as `checkpoint`, or as `adapter` over its checkpoint."""
    file = weights_of(run, cfg)
    OmegaConf.update(cfg, "adapter" if is_adapter(file) else "checkpoint", str(file), force_add=True)


def weights_of(run: Run, cfg: DictConfig) -> Path:
    """The file with the weights that `select` asks for; of an unfinished run, its newest checkpoint.

    Raises:
        CheckpointError: the run has saved none, or they are damaged.
    """
    wanted = cfg.select
    for finished in (WEIGHTS, ADAPTER):
        if run.folder.holds(finished) and wanted == run.config().select:
            return run.folder.require(finished)
    folder = run.folder.sub("checkpoints")
    if wanted == "best" and folder.holds(BEST):
        SafeCheckpointIO().load_checkpoint(folder.require(BEST))
        return folder.path / BEST
    found = newest(folder.path) if wanted != "best" else None
    if found is None:
        raise CheckpointError(f"run {run.name} ({run.state}) has saved no weights yet; `vitexp resume run={run.name}`")
    return found[0]


def require_classes(run: Run, cfg: DictConfig, data: Any) -> None:
    """Raise ConfigError unless the data has the classes that the run was trained on."""
    trained = run.record.get("classes")
    given = list(data.class_names)
    if trained is None or trained == given:
        return
    raise ConfigError(
        f"data={cfg.chosen.data} has {len(given)} classes ({_some(given)}), but run {run.name} was trained on"
        f" {len(trained)} others ({_some(trained)}); evaluate it on {run.record.get('chosen', {}).get('data')},"
        " or fine-tune: vitexp data=... checkpoint=" + str(run.path / WEIGHTS)
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _folder(run: Run | None, cfg: DictConfig, suffix: str = "") -> Folder:
    """The folder of the result; the names of model and data are the run's, so perhaps a stranger's."""
    if run is not None:
        return run.folder.sub("evaluations", f"{cfg.chosen.data}-{cfg.data.image_size}{suffix}")
    name = as_name(f"{datetime.now():%Y-%m-%d_%H%M%S}-{cfg.chosen.model}-{cfg.chosen.data}")
    return Folder(Path(cfg.outputs), "evaluations", name + suffix)
