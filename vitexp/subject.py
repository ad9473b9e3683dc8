"""What an analysis looks at, from a configuration: the trained model, the untrained one, other runs beside them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vitexp import build
from vitexp.analysis.base import Analysis, Subject
from vitexp.checkpoint.write import save_weights
from vitexp.errors import ConfigError
from vitexp.run import Run, find

Measured = dict[str, Any]


def measure_all(cfg: DictConfig, analysis: Analysis, *, trained: bool, notes: list[str]) -> Measured:
    """Label -> what was measured: the model of `cfg` first, then the untrained one, then the runs of `beside`.

    Args:
        cfg: with the analysis, and `checkpoint` the weights if there are any.
        analysis: from `cfg.analysis.measure`.
        trained: whether the model of `cfg` has learnt anything; if not, there is no second untrained one.
        notes: gets a line for each adapted tensor.
    """
    data = build.build_data(cfg)
    model = build.build_model(cfg, notes=notes, new_head=not trained)
    measured = {"trained" if trained else "untrained": analysis.measure(subject(cfg, model, data))}
    if trained and analysis.compares and cfg.analysis.untrained:
        measured["untrained"] = measure_untrained(cfg, analysis, data)
    for reference in cfg.analysis.beside if analysis.compares else ():
        label, other = _other(cfg, reference)
        theirs = build.build_data(other)
        measured[label] = analysis.measure(subject(other, build.build_model(other, new_head=False), theirs))
    return measured


def measure_untrained(cfg: DictConfig, analysis: Analysis, data: Any, device: torch.device | None = None) -> Any:
    """What the model of `cfg` measured before it learnt anything: its seeded weights, no checkpoint."""
    fresh = cfg.copy()
    fresh.checkpoint = None
    OmegaConf.update(fresh, "adapter", None, force_add=True)
    with torch.random.fork_rng():
        model = build.build_model(fresh)
    return analysis.measure(subject(fresh, model, data, device))


def subject(cfg: DictConfig, model: nn.Module, data: Any, device: torch.device | None = None) -> Subject:
    """A model and the images that `cfg.analysis` chooses, on one device.

    Raises:
        ConfigError: data without labelled images to choose from.
    """
    device = device or device_of(cfg)
    if not callable(getattr(data, "sample", None)):
        raise ConfigError(
            f"an analysis looks at labelled images and data={cfg.chosen.data} has none to choose from; it needs an"
            " image set; use data=digits, cifar10, cifar100, imagenet or folder"
        )
    images, labels = data.sample(cfg.analysis.split, cfg.analysis.num_images, seed=cfg.analysis.seed)
    shape = tuple(images.shape[1:])
    return Subject(
        model=model.to(device),
        images=images.to(device),
        labels=labels.to(device),
        mean=list(data.mean),
        std=list(data.std),
        count_macs=lambda counted: build.count_macs(counted, shape),
        trial=lambda changes, epochs=0: _trial(cfg, model, changes, epochs),
    )


def watch(cfg: DictConfig, run: Run, data: Any) -> list[Any]:
    """The callback that runs `analysis=` during training; none without one."""
    if cfg.analysis.measure is None:
        return []
    from vitexp.callback.look import Look

    analysis = build.make(cfg.analysis.measure)

    def theirs(task: Any) -> Subject:
        return subject(cfg, task.evaluated or task.model, data, task.device)

    def untrained(task: Any) -> Any:
        return measure_untrained(cfg, analysis, data, task.device)

    return [
        Look(
            analysis=analysis,
            every=cfg.analysis.every,
            subject=theirs,
            untrained=untrained if analysis.compares and cfg.analysis.untrained else None,
            folder=run.path / "analysis",
            title=title(cfg, run.name),
        )
    ]


def title(cfg: DictConfig, run: str | None) -> str:
    """Model, weights and images, in one line."""
    source = f"run {run}" if run else f"checkpoint {Path(cfg.checkpoint).name}" if cfg.checkpoint else "no checkpoint"
    return f"{cfg.chosen.model}, {source}, {cfg.analysis.num_images} images of {cfg.chosen.data} ({cfg.analysis.split})"


def device_of(cfg: DictConfig) -> torch.device:
    """The GPU where there is one and the trainer would take it."""
    gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def _other(cfg: DictConfig, reference: str) -> tuple[str, DictConfig]:
    """A run to stand beside: its label and its configuration, with this analysis."""
    from vitexp.evaluate import trained_on

    run = find(reference, Path(cfg.outputs))
    other = run.config()
    other.analysis = cfg.analysis
    trained_on(run, other)
    return run.name, other


def _trial(cfg: DictConfig, model: nn.Module, changes: Mapping[str, Any], epochs: int) -> float:
    """Accuracy on the test images of the weights of `model` in a changed configuration, perhaps after fine-tuning."""
    from vitexp.callback.step_keys import StepKeys

    other = cfg.copy()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        grid = getattr(model, "grid", None)
        save_weights(model, file, {"grid": "x".join(map(str, grid))} if grid else {})
        for key, value in {**changes, "checkpoint": str(file), "epochs": max(epochs, 1)}.items():
            OmegaConf.update(other, key, value, force_add=True)
        data = build.build_data(other)
        with torch.random.fork_rng():
            task = build.build_task(other, build.build_model(other, new_head=False))
        trainer = build.build_trainer(other, callbacks=[StepKeys(seed=cfg.seed)], loggers=[], folder=folder)
        if epochs:
            trainer.fit(task, datamodule=data)
        trainer.test(task, datamodule=data, verbose=False)
    return float(trainer.callback_metrics["test/top1"])
