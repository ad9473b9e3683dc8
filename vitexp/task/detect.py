"""Object detection by set prediction: DETR's loss, and COCO's twelve numbers on boxes in original pixels.

Average precision is torchmetrics' with the faster-coco-eval backend, which equals pycocotools on the same detections.
`val/map` and the like are fractions; -1 where there is nothing to find (no small object, say), as COCO has it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from vitexp.contract import SupportsLook
from vitexp.detection.criterion import Criterion, cardinality_error, class_error
from vitexp.detection.denoising import Denoising
from vitexp.detection.padding import padding_of
from vitexp.detection.postprocess import detections
from vitexp.detection.precision import Precision, precision
from vitexp.errors import ConfigError
from vitexp.optim.group import backbone_groups
from vitexp.task.base import Task

Target = dict[str, Any]
Batch = tuple[Tensor, list[Target]]

# COCO's twelve, as torchmetrics names them.
NUMBERS = (
    "map",
    "map_50",
    "map_75",
    "map_small",
    "map_medium",
    "map_large",
    "mar_1",
    "mar_10",
    "mar_100",
    "mar_small",
    "mar_medium",
    "mar_large",
)


class Detect(Task):
    """Train and test a detector; batches are (images, targets) as vitexp/data/box/loader.py has them.

    Args:
        criterion: the loss; its matcher says whether class scores are sigmoids (`focal`).
        backbone_rate: learning rate of `model.backbone` over that of the rest.
        denoising: settings of `Denoising`, to train with its queries too; 0 groups are off.
    """

    monitor = ("val/map", 1)
    means: tuple[str, ...] = (
        "train/loss",
        "train/class",
        "train/l1",
        "train/giou",
        "train/class_error",
        "train/cardinality_error",
    )

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Any],
        num_classes: int,
        criterion: Criterion,
        backbone_rate: float,
        denoising: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, schedule=schedule)
        if not isinstance(model, SupportsLook):
            raise ConfigError(
                f"task=detect trains a detector and model={type(model).__name__.lower()} gives no boxes; it needs one "
                "that does; use model=detr_r50, or model=detr with it as backbone="
            )
        self.criterion, self.num_classes, self.backbone_rate = criterion, num_classes, backbone_rate
        queries: Any = model.queries
        self.denoising: Denoising | None = None
        if denoising is not None and denoising["groups"] != 0:
            self.denoising = Denoising(dim=queries.shape[1], num_classes=num_classes, **denoising)
            self.means = (*self.means, "train/denoising")
        # Of the last evaluated batch: detections of each image, and the boxes of all queries (B, Q, 4).
        self.found: list[dict[str, Tensor]] = []
        self.query_boxes: Tensor | None = None
        self.per_class = torch.full((num_classes,), torch.nan)
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.val_precision, self.test_precision = precision(), precision()

    @property
    def focal(self) -> bool:
        """Whether class scores are sigmoids."""
        return self.criterion.matcher.focal

    def forward(self, images: Tensor, targets: Sequence[Target]) -> Any:
        """Logits (L, B, Q, K + 1) and boxes (L, B, Q, 4) of every decoder layer; targets say only what is padded."""
        return self._run(self.evaluated or self.model, images, targets)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of one micro-batch, all layers, and the sums that the epoch's means are made of."""
        images, targets = batch
        more = () if self.denoising is None else (self.denoising(targets, self._num_queries),)
        logits, boxes = self._run(self.model, images, targets, *more)
        logits, boxes, extra = self._denoise(logits, boxes, targets)
        loss, parts, matched = self.criterion(logits, boxes, targets)
        loss = sum(extra, loss)
        with torch.no_grad():
            errors = [class_error(logits, targets, matched), cardinality_error(logits, targets)]
            self.add_to_means([value * len(images) for value in (loss, *parts, *errors, *extra)], len(images))
            self.last_loss = loss.detach()
        return {"loss": loss}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the val metrics."""
        self._update(self.val_loss, self.val_precision, batch)

    def on_validation_epoch_end(self) -> None:
        """Log and clear the val metrics."""
        self._finish("val", self.val_loss, self.val_precision)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test metrics."""
        self._update(self.test_loss, self.test_precision, batch)

    def on_test_epoch_end(self) -> None:
        """Log and clear the test metrics."""
        self._finish("test", self.test_loss, self.test_precision)
        self.evaluated = None

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Tensor]]:
        """Detections of each image, boxes in its original pixels."""
        images, targets = batch
        logits, boxes = self(images, targets)
        return self._detections(logits, boxes, targets)

    def look(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """The attention of each query in the last decoder layer: (B, Q, h, w) over the padded batch."""
        model: Any = self.evaluated or self.model
        weights: Tensor = model.look(images, _padding(images, targets))
        return weights

    def groups(self, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The backbone, then the rest; all of it decays, as the authors have it."""
        groups = backbone_groups(self.model, lr=lr, weight_decay=weight_decay, backbone_rate=self.backbone_rate)
        if self.denoising is not None:
            names, parameters = zip(*self.denoising.named_parameters(prefix="denoising"), strict=True)
            more = {"params": list(parameters), "names": list(names), "lr": lr, "weight_decay": weight_decay}
            groups.append(more)
        return groups

    @property
    def _num_queries(self) -> int:
        model: Any = self.model
        return len(model.queries)

    def _denoise(self, logits: Tensor, boxes: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The output of the model's own queries, and, with denoising, the loss of the others."""
        if self.denoising is None:
            return logits, boxes, []
        own, noised = slice(None, self._num_queries), slice(self._num_queries, None)
        extra = self.denoising.loss(logits[:, :, noised], boxes[:, :, noised], targets, self.criterion)
        return logits[:, :, own], boxes[:, :, own], [extra]

    def _run(self, model: nn.Module, images: Tensor, targets: Sequence[Target], *more: Any) -> Any:
        return model(images, _padding(images, targets), *more)

    def _detections(self, logits: Tensor, boxes: Tensor, targets: Sequence[Target]) -> list[dict[str, Tensor]]:
        sizes = [target["original_size"] for target in targets]
        return detections(logits[-1], boxes[-1], sizes, focal=self.focal)

    def _update(self, mean: MeanMetric, precision: Precision, batch: Batch) -> None:
        images, targets = batch
        logits, boxes = self(images, targets)
        loss, _, _ = self.criterion(logits, boxes, targets, alone=True)
        mean.update(loss, len(images))
        self.found, self.query_boxes = self._detections(logits, boxes, targets), boxes[-1].float()
        precision.update(
            [{"boxes": f["boxes_xyxy"], "scores": f["scores"], "labels": f["labels"]} for f in self.found],
            [
                {"boxes": truth["boxes_xyxy"], **{key: truth[key] for key in ("labels", "area", "iscrowd")}}
                for truth in (target["truth"] for target in targets)
            ],
        )

    def _finish(self, split: str, mean: MeanMetric, precision: Precision) -> None:
        values = precision.compute()
        self.per_class = per_class(values, self.num_classes)
        numbers = {f"{split}/{name}": float(values[name]) for name in NUMBERS}
        loss = {f"{split}/loss": float(mean.compute())}
        mean.reset()
        precision.reset()
        self.log_epoch({**loss, **numbers})


def per_class(values: dict[str, Any], num_classes: int) -> Tensor:
    """Average precision of each class (K,) from an extended summary; NaN where the data has no object of it."""
    precision = values["precision"]  # (10 IoUs, 101 recalls, classes seen, 4 areas, 3 limits), -1 where undefined
    result = torch.full((num_classes,), torch.nan)
    for column, label in enumerate(values["classes"].reshape(-1).tolist()):
        curve = precision[:, :, column, 0, -1]
        if (curve > -1).any():
            result[int(label)] = curve[curve > -1].mean()
    return result


def _padding(images: Tensor, targets: Sequence[Target]) -> Tensor | None:
    return padding_of([target["size"] for target in targets], (images.shape[-2], images.shape[-1]))
