"""The pictures of a run: one training batch, the confusion matrix, the most confident mistakes."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from vitexp.batch import PackedImages

NUM_SHOWN = 25
SIDE = 96  # pixels of a packed image's picture


class Pictures(Callback):
    """Collect during the first step and the test; draw when asked, so that matplotlib is not imported before."""

    def __init__(self) -> None:
        self.batch: tuple[Tensor, Tensor] | None = None
        self.confusion: Tensor | None = None
        self._mistakes: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the first batch, as the model sees it."""
        images, labels = batch
        if self.batch is not None or batch_idx or not trainer.is_global_zero:
            return
        shown = _pictures(images, torch.arange(min(NUM_SHOWN, len(labels))))
        if shown.ndim == 4:  # else cached features
            self.batch = shown, labels[:NUM_SHOWN].detach().cpu()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier test."""
        self.confusion, self._mistakes = None, {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count (true, predicted) pairs and keep the mistakes that the model was surest of."""
        images, labels = batch
        if labels.ndim != 1:
            return
        logits: Any = pl_module.logits
        probabilities = logits.softmax(1)
        confidence, predicted = probabilities.max(1)
        classes = probabilities.shape[1]
        counts = torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes).cpu()
        self.confusion = counts if self.confusion is None else self.confusion + counts
        wrong = predicted != labels
        columns = {"true": labels, "predicted": predicted, "confidence": confidence}
        rows = {name: column[wrong].detach().cpu() for name, column in columns.items()}
        rows["images"] = _pictures(images, wrong.nonzero().flatten())
        if self._mistakes:
            rows = {name: torch.cat([self._mistakes[name], row]) for name, row in rows.items()}
        surest = rows["confidence"].argsort(descending=True, stable=True)[:NUM_SHOWN]
        self._mistakes = {name: row[surest] for name, row in rows.items()}

    def draw(self, folder: Path, data: Any, *, title: str = "") -> list[Path]:
        """Write the pictures there are; returns their paths."""
        from vitexp.report.plot_confusion import confusion
        from vitexp.report.plot_images import batch, mistakes, to_uint8

        names, written = list(data.class_names), []
        if self.batch is not None:
            images, labels = self.batch
            written.append(
                batch(
                    to_uint8(images.numpy(), data.mean, data.std),
                    labels.numpy(),
                    names,
                    folder / "batch.png",
                    title=title,
                )
            )
        if self.confusion is not None:
            written.append(confusion(self.confusion.numpy(), names, folder / "confusion.png", title=title))
        if self._mistakes and len(self._mistakes["images"]):
            rows = {name: row.numpy() for name, row in self._mistakes.items()}
            out = folder / "mistakes.png"
            pixels = to_uint8(rows["images"], data.mean, data.std)
            written.append(
                mistakes(pixels, rows["true"], rows["predicted"], rows["confidence"], names, out, title=title)
            )
        return written


def _pictures(images: Tensor | PackedImages, which: Tensor) -> Tensor:
    """Some images of a batch, on the CPU: (n, C, H, W); packed ones in the corner of squares of one size."""
    if isinstance(images, PackedImages):
        return images.pictures(which.tolist(), SIDE).detach().cpu()
    return images[which.to(images.device)].detach().cpu()
