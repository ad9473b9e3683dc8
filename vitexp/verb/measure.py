"""The subjects of an analysis: the trained model, the untrained one, other runs beside them."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vitexp import build
from vitexp.analysis.base import Analysis, Subject
from vitexp.callback.look import Look
from vitexp.callback.step_keys import StepKeys
from vitexp.checkpoint.write import save_weights
from vitexp.errors import ConfigError
from vitexp.report.metrics import TEST_TOP1
from vitexp.run.folder import Run

Measurements = dict[str, Any]


def measure_all(
    cfg: DictConfig,
    analysis: Analysis,
    *,
    trained: bool,
    label: str,
    beside: Mapping[str, DictConfig],
    notes: list[str],
) -> Measurements:
    """Label -> what was measured: the model of `cfg` first, then the untrained one, then the runs of `beside`.

    Args:
        cfg: with the analysis, and `checkpoint` the weights if there are any.
        analysis: from `cfg.analysis.measure`.
        trained: whether the model of `cfg` has learnt anything; if not, there is no second untrained one.
        label: of the model of `cfg`.
        beside: label -> configuration of other runs, `checkpoint` their weights.
        notes: gets a line for each adapted tensor.
    """
    data = build.build_data(cfg)
    model = build.build_model(cfg, notes=notes, new_head=not trained)
    measured = {label: analysis.measure(subject(cfg, model, data))}
    if trained and analysis.compares and cfg.analysis.untrained:
        measured["untrained"] = measure_untrained(cfg, analysis, data)
    for label, other in beside.items():
        theirs = build.build_data(other)
        measured[label] = analysis.measure(subject(other, build.build_model(other, new_head=False), theirs))
    return measured


def measure_untrained(cfg: DictConfig, analysis: Analysis, data: Any, device: torch.device | None = None) -> Any:
    """The measurement of the model of `cfg` before it learnt anything: its seeded weights, no checkpoint."""
    fresh = cfg.copy()
    fresh.checkpoint = None
    OmegaConf.update(fresh, "adapter", None, force_add=True)
    with torch.random.fork_rng():
        model = build.build_model(fresh)
    return analysis.measure(subject(fresh, model, data, device))


def subject(cfg: DictConfig, model: nn.Module, data: Any, device: torch.device | None = None) -> Subject:
    """A model and the images that `cfg.analysis` chooses, on one device.

    Raises:
        ConfigError: data without one label for each image.
    """
    device = device or build.device_of(cfg)
    images, labels = data.sample(cfg.analysis.split, cfg.analysis.num_images, seed=cfg.analysis.seed)
    shape = tuple(images.shape[1:])
    return Subject(
        model=model.to(device),
        images=images.to(device),
        labels=labels.to(device),
        mean=list(data.mean),
        std=list(data.std),
        count_macs=lambda counted: build.count_macs(counted, shape),
        trial=lambda changes, unset=None, epochs=0: _trial(cfg, model, changes, unset or {}, epochs),
    )


def watch(cfg: DictConfig, run: Run, data: Any, analysis: Analysis | None) -> list[Look]:
    """The callback that runs an analysis during training; none without one."""
    if analysis is None:
        return []

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
            folder=run.folder.sub("analysis"),
            title=title(cfg, run.name, analysis),
        )
    ]


def title(cfg: DictConfig, run: str | None, analysis: Analysis) -> str:
    """Model, weights and images, in one line."""
    source = f"run {run}" if run else f"checkpoint {Path(cfg.checkpoint).name}" if cfg.checkpoint else "no checkpoint"
    images = f"{cfg.analysis.num_images} images of {cfg.chosen.data} ({cfg.analysis.split})"
    return f"{cfg.chosen.model}, {source}, {images if analysis.samples else f'all test images of {cfg.chosen.data}'}"


def _trial(
    cfg: DictConfig, model: nn.Module, changes: Mapping[str, Any], unset: Mapping[str, Any], epochs: int
) -> float:
    """Accuracy on the test images of the weights of `model` in a changed configuration, perhaps after fine-tuning."""
    other = _changed(cfg, changes, unset)
    other.trainer.devices, other.trainer.strategy = 1, "auto"  # several trials in one process, one after the other
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_weights(model, file, {})
        other.checkpoint, other.epochs = str(file), max(epochs, 1)
        data = build.build_data(other)
        with torch.random.fork_rng():
            task = build.build_task(other, build.build_model(other, new_head=False))
        trainer = build.build_trainer(other, folder=folder, callbacks=[StepKeys(seed=cfg.seed)])
        if epochs:
            trainer.fit(task, datamodule=data)
        trainer.test(task, datamodule=data, verbose=False)
    return float(trainer.callback_metrics[TEST_TOP1])


def _changed(cfg: DictConfig, changes: Mapping[str, Any], unset: Mapping[str, Any]) -> DictConfig:
    """The configuration with changed keys, the model else as it was trained: rules that follow the image size, as the
    patch does, keep the value they had.

    Raises:
        ConfigError: a key that the model does not have.
    """
    other = cfg.copy()
    other.model = pinned(OmegaConf.to_container(cfg.model), OmegaConf.to_container(cfg.model, resolve=True))
    for key, value in changes.items():
        if OmegaConf.select(other, key) is None:
            raise ConfigError(
                f"{key} is no key of model={cfg.chosen.model}, so it has no window to change; analysis.windows is for"
                " windowed models; use analysis.windows=[], or name the key by analysis.window_key="
            )
        OmegaConf.update(other, key, value)
    for key, value in unset.items():
        if value is not None and OmegaConf.select(other, key) is None:
            OmegaConf.update(other, key, value, force_add=True)
    return other


def pinned(rule: Any, value: Any) -> Any:
    """The resolved node, in which plain references (`${data.image_size}`) stay references."""
    if isinstance(rule, dict) and isinstance(value, dict):
        return {key: pinned(rule[key], value[key]) for key in rule}
    if isinstance(rule, str) and re.fullmatch(r"\$\{data\.\w+\}", rule):
        return rule
    return value
