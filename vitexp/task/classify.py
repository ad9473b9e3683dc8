"""Image classification: cross-entropy or binary cross-entropy, top-1, top-5, calibration error, per-class accuracy.

Labels are class ids (B,), soft targets (B, K) from mixup and cutmix, or for testing a bool set of right answers (B, K)
(ImageNet ReaL, Beyer et al., arXiv 2006.07159), where a row without an answer is not scored. Calibration error: Guo et
al., arXiv 1706.04599, 15 bins. Per-step values are kept as tensors and read when a row is due.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from vitexp.contract import SEE
from vitexp.errors import ConfigError
from vitexp.optim.group import parameter_groups
from vitexp.task.base import Task

Batch = tuple[Tensor, Tensor]


class Classify(Task):
    """Train and test a classifier: logits (B, K) from images (B, C, H, W)."""

    monitor = ("val/top1", 1)
    means = ("train/loss", "train/top1")

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Any],
        num_classes: int,
        loss: str,
        label_smoothing: float,
        layer_decay: float,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, schedule=schedule)
        if loss not in ("softmax", "sigmoid"):
            raise ConfigError(f"task.loss={loss} is not known; use softmax or sigmoid")
        self.num_classes, self.loss = num_classes, loss
        self.label_smoothing, self.layer_decay = label_smoothing, layer_decay
        self.logits: Tensor | None = None
        self.val_metrics, self.test_metrics = self._metrics("val/"), self._metrics("test/")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        return self._logits(self.evaluated or self.model, images)

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """The answer of a model to images. Raises ConfigError if that is no Tensor (B, K)."""
        logits = model(images)
        if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] == self.num_classes:
            return logits
        kind = type(logits).__name__
        gave = f"a {kind} {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {kind}"
        raise ConfigError(
            f"task=classify reads logits (B, {self.num_classes}) and {type(model).__name__} gave {gave};"
            f" let its forward return one row of {self.num_classes} numbers an image ({SEE})"
        )

    @torch.no_grad()
    def try_model(self, channels: int, size: int) -> None:
        """Give the model one black image, in evaluation mode. Raises ConfigError if no logits (1, K) come back."""
        training = self.model.training
        self._logits(self.model.eval(), torch.zeros(1, channels, size, size))
        self.model.train(training)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of one micro-batch, and the sums that the epoch's means are made of."""
        images, labels = batch
        logits = self._logits(self.model, images)
        loss = self.criterion(logits, labels)
        with torch.no_grad():
            truth = labels if labels.ndim == 1 else labels.argmax(1)
            right = (logits.argmax(1) == truth).sum()
            self.add_to_means([loss.double() * len(images), right], len(images))
            self.last_loss = loss.detach()
        # Of packed images a process may have more than another: the mean over all is a weighted one.
        return {"loss": loss * getattr(images, "weight", 1.0)}

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over images; `labels` are ids (B,) or soft targets (B, K)."""
        if self.loss == "softmax":
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        targets = labels if labels.ndim == 2 else F.one_hot(labels, self.num_classes).to(logits.dtype)
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the val metrics."""
        self._update(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        """Log and clear the val metrics."""
        self._finish(self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test metrics."""
        self._update(self.test_metrics, batch)

    def on_test_epoch_end(self) -> None:
        """Log and clear the test metrics."""
        self._finish(self.test_metrics)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities (B, K)."""
        images = batch[0] if isinstance(batch, list | tuple) else batch
        return self._probabilities(self(images))

    def groups(self, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Decay and no-decay groups, the rate falling off towards the stem."""
        return parameter_groups(self.model, lr=lr, weight_decay=weight_decay, layer_decay=self.layer_decay)

    def _metrics(self, prefix: str) -> MetricCollection:
        classes, top = self.num_classes, min(5, self.num_classes)
        metrics: dict[str, Metric | MetricCollection] = {
            "loss": MeanMetric(),
            "top1": MulticlassAccuracy(classes, average="micro", validate_args=False),
            "top5": MulticlassAccuracy(classes, average="micro", top_k=top, validate_args=False),
            "ece": MulticlassCalibrationError(classes, n_bins=15, validate_args=False),
            "per_class": MulticlassAccuracy(classes, average=None, validate_args=False),
        }
        return MetricCollection(metrics, prefix=prefix, compute_groups=False)

    def _update(self, metrics: MetricCollection, batch: Batch) -> None:
        images, labels = batch
        logits = self(images).float()
        self.logits = logits
        if labels.dtype == torch.bool:
            logits, labels = _answered(logits, labels)
        if not len(labels):
            return
        probabilities = self._probabilities(logits)
        metrics["loss"].update(F.cross_entropy(logits, labels), len(labels))
        for name in ("top1", "top5", "ece", "per_class"):
            metrics[name].update(probabilities, labels)

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self.loss == "softmax":
            return logits.softmax(1)
        # Independent probabilities, made to sum to one: the order stays, and the calibration error is defined.
        return F.normalize(logits.sigmoid(), p=1.0, dim=1)

    def _finish(self, metrics: MetricCollection) -> None:
        values = metrics.compute()
        self.per_class = values.pop(f"{metrics.prefix}per_class").cpu()
        metrics.reset()
        self.evaluated = None if metrics.prefix == "test/" else self.evaluated
        self.log_epoch({name: float(value) for name, value in values.items()})


def _answered(logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with an answer, and one label each: the predicted class if it is among the answers, else the first."""
    kept = answers.any(1)
    logits, answers = logits[kept], answers[kept]
    best = logits.argmax(1)
    hit = answers.gather(1, best[:, None]).squeeze(1)
    return logits, torch.where(hit, best, answers.int().argmax(1))
