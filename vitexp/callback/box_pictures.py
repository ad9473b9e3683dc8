"""The pictures of a detection run: a training batch, detections, the decoder's attention, query boxes."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from vitexp.callback.pictures import Pictures

NUM_SHOWN = 12
# Of an image in the attention figure, and images there.
NUM_OBJECTS, NUM_ROWS = 5, 4
MAX_QUERY_IMAGES = 2000
THRESHOLD = 0.5
# Shown of an image where nothing reaches the threshold, so that an early run is not a blank page.
FEWEST = 3


class BoxPictures(Pictures):
    """Collect during the first step and the test; draw when asked."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Any = None
        self._forget()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the first batch, as the model sees it."""
        if self.first is None and batch_idx == 0 and trainer.is_global_zero:
            images, targets = batch
            self.first = images[:NUM_SHOWN].detach().cpu(), [_cpu(target) for target in targets[:NUM_SHOWN]]

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier test."""
        self._forget()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images with what was found in them, and the boxes of all queries."""
        images, targets = batch
        task: Any = pl_module
        if len(self.queries) < MAX_QUERY_IMAGES:
            self.queries += list(task.query_boxes.cpu())
        room = NUM_SHOWN - len(self.images)
        if room <= 0 or not trainer.is_global_zero:
            return
        with torch.inference_mode():
            looks = task.look(images, targets) if len(self.looks) < NUM_ROWS else None
        for index in range(min(room, len(images))):
            self.images.append(images[index].detach().cpu())
            self.targets.append(_cpu(targets[index]))
            self.found.append(_cpu(task.found[index]))
            if looks is not None and len(self.looks) < NUM_ROWS:
                self.looks.append(looks[index].cpu())

    def draw(self, folder: Path, data: Any, *, title: str = "") -> list[Path]:
        """Write the pictures there are; returns their paths."""
        from vitexp.report.plot_boxes import boxes_grid, query_boxes

        names, written = list(data.class_names), []
        if self.first is not None:
            images, targets = self.first
            pixels = [_pixels(image, target, data) for image, target in zip(images, targets, strict=True)]
            boxes = [_wanted(target, names) for target in targets]
            captions = [f"{len(target['labels'])} objects" for target in targets]
            headline = f"One training batch, augmented ({len(pixels)} images)"
            written.append(boxes_grid(pixels, boxes, captions, folder / "batch.png", headline=headline, title=title))
        if self.found:
            written += self._draw_found(folder, data, names, title)
            written.append(query_boxes(torch.stack(self.queries).numpy(), folder / "queries.png", title=title))
        return written

    def _draw_found(self, folder: Path, data: Any, names: list[str], title: str) -> list[Path]:
        from vitexp.report.plot_boxes import attention, boxes_grid

        pixels = [_pixels(image, target, data) for image, target in zip(self.images, self.targets, strict=True)]
        rows = [surest(found) for found in self.found]
        boxes = [_said(*each, names) for each in zip(self.found, rows, self.targets, strict=True)]
        captions = [
            f"{int((found['scores'] > THRESHOLD).sum())} above {THRESHOLD:g}, {len(target['truth']['labels'])} there"
            for found, target in zip(self.found, self.targets, strict=True)
        ]
        out, headline = folder / "detections.png", "Detections on test images"
        drawn = [boxes_grid(pixels, boxes, captions, out, headline=headline, title=title)]
        shown = range(len(self.looks))
        looks = [self._look(index, rows[index][:NUM_OBJECTS]) for index in shown]
        boxes = [boxes[index][:NUM_OBJECTS] for index in shown]
        drawn.append(attention([pixels[i] for i in shown], boxes, looks, folder / "attention.png", title=title))
        return drawn

    def _look(self, index: int, rows: Tensor) -> Any:
        """The maps of the queries behind detections `rows`, without the padding: (rows, h', w')."""
        maps = self.looks[index][self.found[index]["queries"][rows]]
        height, width = self.images[index].shape[-2:]
        real_height, real_width = self.targets[index]["size"].tolist()
        down = max(1, round(maps.shape[1] * real_height / height))
        return maps[:, :down, : max(1, round(maps.shape[2] * real_width / width))].numpy()

    def _forget(self) -> None:
        self.images: list[Tensor] = []
        self.targets: list[dict[str, Any]] = []
        self.found: list[dict[str, Tensor]] = []
        self.looks: list[Tensor] = []
        self.queries: list[Tensor] = []


def pictures_of(task: str) -> Pictures:
    """The pictures that suit `task=`."""
    return BoxPictures() if task == "detect" else Pictures()


def surest(found: dict[str, Tensor], *, threshold: float = THRESHOLD, fewest: int = FEWEST) -> Tensor:
    """Places of the detections above the threshold, surest first, and of `fewest` at the least."""
    order = found["scores"].argsort(descending=True, stable=True)
    return order[: max(fewest, int((found["scores"] > threshold).sum()))]


def _said(found: dict[str, Tensor], rows: Tensor, target: dict[str, Any], names: list[str]) -> list[Any]:
    """Detections as drawn boxes, in the pixels of the resized image."""
    from vitexp.report.draw_boxes import DrawnBox

    scale = float(target["size"][0] / target["original_size"][0])
    return [
        DrawnBox(
            corners=(found["boxes_xyxy"][row] * scale).tolist(),
            text=f"{names[int(found['labels'][row])]} {float(found['scores'][row]):.2f}",
            colour=int(found["labels"][row]),
        )
        for row in rows.tolist()
    ]


def _wanted(target: dict[str, Any], names: list[str]) -> list[Any]:
    """The objects of a training image as drawn boxes."""
    from vitexp.report.draw_boxes import DrawnBox

    height, width = target["size"].tolist()
    half = target["boxes_cxcywh"][:, 2:] / 2
    corners = torch.cat([target["boxes_cxcywh"][:, :2] - half, target["boxes_cxcywh"][:, :2] + half], dim=1)
    corners = corners * torch.tensor([width, height, width, height])
    return [
        DrawnBox(corners=box, text=names[label], colour=label)
        for box, label in zip(corners.tolist(), target["labels"].tolist(), strict=True)
    ]


def _pixels(image: Tensor, target: dict[str, Any], data: Any) -> Any:
    """The image without its padding, uint8 (C, h, w)."""
    from vitexp.report.plot_images import to_uint8

    height, width = target["size"].tolist()
    return to_uint8(image[None, :, :height, :width].numpy(), data.mean, data.std)[0]


def _cpu(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _cpu(value) if isinstance(value, dict) else value.detach().cpu() for key, value in values.items()}
