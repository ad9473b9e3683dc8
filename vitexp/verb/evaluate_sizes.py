"""`vitexp evaluate run=last size=64,96,native`: accuracy against tokens against time, one test a size.

The model keeps its patch and all else that follows the image size in training; positions and windows are made for each
size as on loading. Time is that of the model on the test batches, data not counted.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer

from vitexp import build
from vitexp.batch import PackedImages
from vitexp.callback.progress import Progress
from vitexp.errors import ConfigError
from vitexp.files.folder import Folder
from vitexp.report.metrics import TEST_TOP1, TEST_TOP5
from vitexp.report.screen import print_notes, say, show
from vitexp.report.table import csv_text, value_table
from vitexp.verb.measure import pinned

COLUMNS = ("size", "top1", "top5", "tokens an image", "ms an image", "images/s")


class Clock(Callback):
    """Seconds, images and tokens of a test."""

    def __init__(self) -> None:
        self.seconds, self.images, self.tokens = 0.0, 0, 0
        self._start = 0.0

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """The batch is there."""
        _wait(pl_module.device)
        self._start = perf_counter()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the time of the batch, once its logits are there."""
        _wait(pl_module.device)
        self.seconds += perf_counter() - self._start
        images, model = batch[0], pl_module.model
        self.images += len(images)
        self.tokens += images.num_tokens if isinstance(images, PackedImages) else _cells(images, model)


def evaluate_sizes(cfg: DictConfig, sizes: Sequence[str], folder: Folder) -> dict[str, Any]:
    """Test at each of `sizes`, print the table and write `sizes.csv`; returns `top1/<size>` for each.

    On one device, whose time it is.

    Raises:
        ConfigError: a size that is none, `native` without packed images, a detector.
    """
    if cfg.chosen.task != "classify":
        raise ConfigError(f"size={','.join(sizes)}: only classifiers are tested at several sizes; give one size=")
    cfg.trainer.devices, cfg.trainer.strategy = 1, "auto"
    rows: list[tuple[Any, ...]] = []
    folder.made()
    for size in sizes:
        clock, metrics = _test(at_size(cfg, size), folder.path)
        pace = clock.seconds / clock.images
        tokens = clock.tokens / clock.images
        scores = (round(metrics[name], 4) for name in (TEST_TOP1, TEST_TOP5))
        rows.append((size, *scores, round(tokens, 1), round(1000 * pace, 3), round(1 / pace)))
    file = folder.write_text("sizes.csv", csv_text(COLUMNS, rows))
    if not cfg.quiet:
        show(value_table(COLUMNS, rows), quiet=False)
        say(f"written to {file}", quiet=False)
    return {f"top1/{size}": top1 for size, top1, *_ in rows}


def at_size(cfg: DictConfig, size: str) -> DictConfig:
    """The configuration at another size; rules that follow the size, as the patch does, keep the value they had."""
    other = cfg.copy()
    other.model = pinned(OmegaConf.to_container(cfg.model), OmegaConf.to_container(cfg.model, resolve=True))
    if size == "native":
        if cfg.data.get("sampler") != "packed":
            raise ConfigError(
                f"size=native needs images of many sizes in one batch, and model={cfg.chosen.model} was trained"
                " without; use size=64,96 and so on, or model=navit_ti16"
            )
        other.data.packing.native = True
        return other
    if not size.isdigit() or int(size) < 1:
        raise ConfigError(f"size={size} is no size; use pixels and native, as in size=64,96,native")
    other.data.image_size = int(size)
    return other


def _test(cfg: DictConfig, folder: Path) -> tuple[Clock, dict[str, float]]:
    notes: list[str] = []
    data = build.build_data(cfg)
    task = build.build_task(cfg, build.build_model(cfg, notes=notes, new_head=False))
    print_notes(notes, quiet=cfg.quiet)
    clock = Clock()
    trainer = build.build_trainer(cfg, folder=folder, callbacks=[clock, Progress(quiet=cfg.quiet)])
    build.switches(cfg, task.model, inference=True)
    trainer.test(task, datamodule=data, verbose=False)
    return clock, {name: float(value) for name, value in trainer.callback_metrics.items()}


def _cells(images: torch.Tensor, model: Any) -> int:
    """Tokens of a batch of images of one size: cells of the last map that the model makes of them."""
    height, width = (-(-side // model.strides[-1]) for side in images.shape[-2:])
    return len(images) * height * width


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
