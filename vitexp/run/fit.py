"""One training session in a run folder, from the first step or from a checkpoint, to the tested and saved weights."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback
from torch import nn

from vitexp import build
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
from vitexp.checkpoint.safe_io import BEST, SafeCheckpointIO, newest
from vitexp.checkpoint.write import save_weights
from vitexp.logger.choose import build_logger, without_secrets
from vitexp.logger.metrics_file import read_metrics
from vitexp.logger.tracker import RunLogger, Session
from vitexp.report.screen import print_card, show
from vitexp.run.adapters import save_adapter
from vitexp.run.folder import Run
from vitexp.run.header import device_of, print_header
from vitexp.run.measure import watch

WEIGHTS = "weights.safetensors"
_KEPT = ("train/", "val/", "analysis/")  # what of metrics.csv has a last value that says something of the run


def fit(
    cfg: DictConfig,
    run: Run,
    data: Any,
    task: Any,
    *,
    position: dict[str, int] | None = None,
    watchers: Sequence[Callback] = (),
) -> dict[str, float]:
    """Train to the end, test once, save weights and pictures; returns the final metrics.

    Args:
        cfg: the whole configuration.
        run: the folder, held by this process.
        data: the data module.
        task: the task around the model.
        position: `step`, `epoch` and `batch` at which `last.ckpt` goes on; None starts at the beginning.
        watchers: more callbacks, called after those of every run.
    """
    if position is not None:
        data.start = (position["epoch"], position["batch"])
    logger = _logger(cfg, run, position)
    trainer = build.build_trainer(
        cfg,
        callbacks=[*_callbacks(cfg, run, data), *watchers],
        loggers=[logger],
        folder=run.path,
        plugins=[SafeCheckpointIO()],
    )
    build.switches(cfg, task.model)
    run.update(hardware={**run.record["hardware"], "device": device_of(trainer)})
    if not cfg.quiet and trainer.is_global_zero:
        print_header(cfg, run, task, data, trainer)
    checkpoint = newest(run.checkpoints) if position is not None else None
    start, failed = time.perf_counter(), 1
    try:
        trainer.fit(task, datamodule=data, ckpt_path=str(checkpoint[0]) if checkpoint else None)
        seconds = time.perf_counter() - start
        metrics = _test(cfg, run, data, task, trainer)
        run.update(metrics=metrics, fit_seconds=round(run.record.get("fit_seconds", 0.0) + seconds, 3))
        if trainer.is_global_zero:
            _draw(run, data, trainer, logger)
        failed = 0
    finally:
        logger.close(exit_code=failed)
    if trainer.is_global_zero and not cfg.quiet:
        _print_results(run, metrics, trainer)
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


def logger_settings(cfg: DictConfig) -> dict[str, Any]:
    """The settings of `logger=`; of a file that names a class of the user's, the factory of a tracker for a session."""
    settings: Any = OmegaConf.to_container(cfg.logger, resolve=True)
    return {"own": build.make(cfg.logger, trust=cfg.trust)} if "_target_" in settings else settings


def _logger(cfg: DictConfig, run: Run, position: dict[str, int] | None) -> RunLogger:
    """The run's own metrics.csv and what `logger=` asks for; the same runs there after a resume."""
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    session = session_of(run, config, position["step"] if position else None)
    logger = build_logger(logger_settings(cfg), session)
    run.update(trackers={**session.ids, **logger.ids})
    return logger


def _callbacks(cfg: DictConfig, run: Run, data: Any) -> list[Callback]:
    """The callbacks in the order in which they are called; the safe point saves last, when all others have counted."""
    settings, finite = cfg.trainer, Finite(every=cfg.trainer.log_every)
    average = Average(decay=settings.ema) if settings.ema is not None else None
    return [
        StepKeys(seed=cfg.seed),
        finite,
        *([average] if average is not None else []),
        SharedNorms(average=average),
        StepLog(every=settings.log_every),
        *([Throughput()] if cfg.data.get("sampler", "fixed") != "fixed" else []),
        pictures_of(cfg.chosen.task),
        *watch(cfg, run, data),
        *([Embed()] if cfg.regime.get("cache") else []),
        Progress(quiet=cfg.quiet),
        SafePoint(folder=run.checkpoints, every_s=settings.checkpoint_seconds, finite=finite),
    ]


def _test(cfg: DictConfig, run: Run, data: Any, task: Any, trainer: Any) -> dict[str, float]:
    """Test the selected weights and save them; the metrics of the last and of the best epoch beside them."""
    rows = read_metrics(run.path / "metrics.csv")
    last = {name: value for row in rows for name, value in row.items() if name.startswith(_KEPT)}
    for name in ("train/loss_step", "train/grad_norm"):
        last.pop(name, None)
    safe_point = next(c for c in trainer.callbacks if isinstance(c, SafePoint))
    selected = _select(cfg, run, task, trainer)
    if trainer.is_global_zero and is_whole(selected):
        save_weights(selected, run.path / WEIGHTS, _metadata(cfg, run, data, selected))
    trainer.test(task, datamodule=data, verbose=False)
    tested = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    metrics = {**last, **{name: float(value) for name, value in tested.items()}}
    if safe_point.best is not None:
        metrics[f"best/{task.monitor[0]}"] = safe_point.best
        metrics["best/epoch"] = float(safe_point.best_epoch or 0)
    if trainer.is_global_zero:
        save_adapter(cfg, run, data, selected, trained_names(task.model), metrics)
    return metrics


def _select(cfg: DictConfig, run: Run, task: Any, trainer: Any) -> nn.Module:
    """The weights that are tested and exported: of the last epoch (their average, if one is kept) or the best one."""
    model: nn.Module = task.model
    average = next((c.average for c in trainer.callbacks if isinstance(c, Average)), None)
    if cfg.select == "best" and (run.checkpoints / BEST).exists():
        best = SafeCheckpointIO().load_checkpoint(run.checkpoints / BEST)["state_dict"]
        model = average.module if average is not None else model
        model.load_state_dict(best, strict=trained_names(task.model) is None)
        return model
    return average.module if average is not None else model


def _metadata(cfg: DictConfig, run: Run, data: Any, model: nn.Module) -> dict[str, str]:
    """The metadata of the weights file, as safetensors' strings."""
    return {
        "run": run.name,
        "model": str(cfg.chosen.model),
        "data": str(cfg.chosen.data),
        "config": json.dumps(OmegaConf.to_container(cfg.model, resolve=True)),
        "classes": json.dumps(list(data.class_names)),
        "mean": json.dumps(list(data.mean)),
        "std": json.dumps(list(data.std)),
        **({"pruned": json.dumps(OmegaConf.to_container(cfg.pruned.layers))} if cfg.get("pruned") else {}),
        **({"grid": "x".join(map(str, grid))} if (grid := getattr(model, "grid", None)) else {}),
    }


def _draw(run: Run, data: Any, trainer: Any, logger: RunLogger) -> None:
    """The pictures of the run, to the folder and to the trackers."""
    from vitexp.report.plot_curves import curves

    pictures = next(c for c in trainer.callbacks if isinstance(c, Pictures))
    written: list[Path] = []
    written += curves(run.path / "metrics.csv", run.path / "plots", title=run.name)
    written += pictures.draw(run.path / "plots", data, title=run.name)
    for path in written:
        logger.log_picture(path.stem, path, trainer.global_step)


def _print_results(run: Run, metrics: dict[str, float], trainer: Any) -> None:
    """The headline values of an analysis, and the card."""
    for callback in trainer.callbacks:
        if isinstance(callback, Look):
            show(callback.table(), quiet=False)
    print_card(run.name, run.path, metrics, run.record["fit_seconds"])
