"""One training session in a run folder, from the first step or from a checkpoint, to the tested and saved weights."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback
from torch import nn

from vitexp.callback.average import Average
from vitexp.callback.box_pictures import pictures_of
from vitexp.callback.embed import Embed
from vitexp.callback.finite import Finite
from vitexp.callback.look import Look
from vitexp.callback.pictures import Pictures
from vitexp.callback.progress import Progress
from vitexp.callback.safe_point import SafePoint
from vitexp.callback.shared_norms import SharedNorms
from vitexp.callback.step_keys import StepKeys
from vitexp.callback.step_log import StepLog
from vitexp.callback.throughput import Throughput
from vitexp.checkpoint.adapter import is_whole, trained_names
from vitexp.checkpoint.safe_io import BEST, Position, SafeCheckpointIO
from vitexp.checkpoint.write import save_weights
from vitexp.logger.choose import build_logger, without_secrets
from vitexp.logger.metrics_file import read_metrics
from vitexp.logger.tracker import RunLogger, Session
from vitexp.report.screen import print_card, show
from vitexp.run.adapters import save_adapter
from vitexp.run.folder import Run
from vitexp.run.header import device_of, print_header
from vitexp.run.training import Settings, Training

WEIGHTS = "weights.safetensors"
_KEPT = ("train/", "val/", "analysis/")  # what of metrics.csv has a last value that says something of the run


def fit(
    training: Training,
    run: Run,
    *,
    start: Position | None = None,
    looks: Sequence[Look] = (),
    watchers: Sequence[Callback] = (),
) -> dict[str, float]:
    """Train to the end, test once, save weights and pictures; returns the final metrics.

    Args:
        training: what trains.
        run: the folder, held by this process.
        start: where a resumed run goes on; None for a new one.
        looks: callbacks that analyse the model.
        watchers: more callbacks, called after those of every run.
    """
    data, task, trainer, settings = training.data, training.task, training.trainer, training.settings
    if start is not None:
        data.start = (start.epoch, start.batch)
    callbacks = [*_callbacks(settings, run, looks), *watchers]
    trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]  # a list that its constructor makes
    logger = _logger(training, run, start)
    trainer.loggers = [logger]
    run.update(hardware={**run.record["hardware"], "device": device_of(trainer)})
    if not settings.quiet and trainer.is_global_zero:
        print_header(run, training)
    began, failed = time.perf_counter(), 1
    try:
        trainer.fit(task, datamodule=data, ckpt_path=start.file if start is not None else None)
        seconds = time.perf_counter() - began
        metrics = _test(training, run, callbacks)
        run.update(metrics=metrics, fit_seconds=round(run.record.get("fit_seconds", 0.0) + seconds, 3))
        if trainer.is_global_zero:
            _draw(run, training, callbacks, logger)
        failed = 0
    finally:
        logger.close(exit_code=failed)
    if trainer.is_global_zero and not settings.quiet:
        _print_results(run, metrics, looks)
    return metrics


def session_of(run: Run, config: dict[str, Any], resume_step: int | None) -> Session:
    """A run as the trackers are told of it; `config` is the resolved configuration."""
    folder, earlier = run.path.resolve(), run.record.get("wandb_id")  # as runs kept it that had wandb alone
    return Session(
        run_dir=run.path,
        run_name=run.name,
        config=without_secrets(config),
        group=folder.parent.name if folder.parent.parent.name == "sweeps" else None,
        resume_step=resume_step,
        ids={**({"wandb": earlier} if earlier else {}), **run.record.get("trackers", {})},
    )


def _logger(training: Training, run: Run, start: Position | None) -> RunLogger:
    """The run's own metrics.csv and what `logger=` asks for; the same runs there after a resume."""
    session = session_of(run, training.settings.config, start.step if start is not None else None)
    logger = build_logger(training.logger, session)
    run.update(trackers={**session.ids, **logger.ids})
    return logger


def _callbacks(settings: Settings, run: Run, looks: Sequence[Look]) -> list[Callback]:
    """The callbacks in the order in which they are called; the safe point saves last, when all others have counted."""
    finite = Finite(every=settings.log_every)
    average = Average(decay=settings.ema) if settings.ema is not None else None
    return [
        StepKeys(seed=settings.seed),
        finite,
        *([average] if average is not None else []),
        SharedNorms(average=average),
        StepLog(every=settings.log_every),
        *([Throughput()] if settings.sampler != "fixed" else []),
        pictures_of(settings.chosen["task"]),
        *looks,
        *([Embed()] if settings.embeds else []),
        Progress(quiet=settings.quiet),
        SafePoint(folder=run.checkpoints, every_s=settings.checkpoint_seconds, finite=finite),
    ]


def _test(training: Training, run: Run, callbacks: Sequence[Callback]) -> dict[str, float]:
    """Test the selected weights and save them; the metrics of the last and of the best epoch beside them."""
    task, trainer, settings = training.task, training.trainer, training.settings
    rows = read_metrics(run.path / "metrics.csv")
    last = {name: value for row in rows for name, value in row.items() if name.startswith(_KEPT)}
    for name in ("train/loss_step", "train/grad_norm"):
        last.pop(name, None)
    safe_point = next(c for c in callbacks if isinstance(c, SafePoint))
    selected = _select(training, run, callbacks)
    if trainer.is_global_zero and is_whole(selected):
        save_weights(selected, run.path / WEIGHTS, _metadata(training, run.name))
    trainer.test(task, datamodule=training.data, verbose=False)
    tested = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    metrics = {**last, **{name: float(value) for name, value in tested.items()}}
    if safe_point.best is not None:
        metrics[f"best/{task.monitor[0]}"] = safe_point.best
        metrics["best/epoch"] = float(safe_point.best_epoch or 0)
    if trainer.is_global_zero:
        names, norm = trained_names(task.model), settings.config["regime"].get("memory_norm")
        about = {**settings.chosen, "metrics": metrics, "memory_norm": norm}
        save_adapter(run, training.data, selected, names, about)
    return metrics


def _select(training: Training, run: Run, callbacks: Sequence[Callback]) -> nn.Module:
    """The weights that are tested and exported: of the last epoch (their average, if one is kept) or the best one."""
    model = training.task.model
    average = next((c.average for c in callbacks if isinstance(c, Average)), None)
    if training.settings.select == "best" and run.folder.sub("checkpoints").has(BEST):
        best = SafeCheckpointIO().load_checkpoint(run.checkpoints / BEST)["state_dict"]
        model = average.module if average is not None else model
        model.load_state_dict(best, strict=trained_names(training.task.model) is None)
        return model
    return average.module if average is not None else model


def _metadata(training: Training, run: str) -> dict[str, str]:
    """The metadata of the weights file, as safetensors' strings."""
    data, config = training.data, training.settings.config
    values = {
        "config": config["model"],
        "classes": list(data.class_names),
        "mean": list(data.mean),
        "std": list(data.std),
        **({"pruned": config["pruned"]["layers"]} if config.get("pruned") else {}),
    }
    named = {"run": run, **{group: training.settings.chosen[group] for group in ("model", "data")}}
    return {**named, **{key: json.dumps(value) for key, value in values.items()}}


def _draw(run: Run, training: Training, callbacks: Sequence[Callback], logger: RunLogger) -> None:
    """The pictures of the run, to the folder and to the trackers."""
    from vitexp.report.plot_curves import curves

    pictures = next(c for c in callbacks if isinstance(c, Pictures))
    written: list[Path] = []
    plots = run.folder.sub("plots").made().path
    written += curves(run.path / "metrics.csv", plots, title=run.name)
    written += pictures.draw(plots, training.data, title=run.name)
    for path in written:
        logger.log_picture(path.stem, path, training.trainer.global_step)


def _print_results(run: Run, metrics: dict[str, float], looks: Sequence[Look]) -> None:
    """The headline values of an analysis, and the card."""
    for look in looks:
        show(look.table(), quiet=False)
    print_card(run.name, run.path, metrics, run.record["fit_seconds"])
