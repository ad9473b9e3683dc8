"""COCO's average precision over the processes of a run (Lin et al. 2014), as torchmetrics and faster-coco-eval have it.

Deviation from torchmetrics: the processes hand each other their whole lists. It gathers one tensor after another, and
waits for ever where one process has seen more images than another, as at the end of a set.
"""

from typing import Any

import numpy as np
import torch.distributed
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision


class Precision(MeanAveragePrecision):
    """Mean average precision whose processes need not have seen equally many images, or any."""

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        mine = {name: [_cpu(row) for row in getattr(self, name)] for name in self._reductions}
        every: list[Any] = [None] * torch.distributed.get_world_size(process_group)
        torch.distributed.all_gather_object(every, mine, group=process_group)
        for name in self._reductions:
            rows = [row for states in every for row in states[name]]
            setattr(self, name, [row.to(self.device) for row in rows])


def precision() -> Precision:
    """Its extended summary holds the curves that per-class values are read off, at no second evaluation.

    pycocotools' thresholds, given as doubles: torchmetrics makes its own in single precision, and where a recall is
    exactly a threshold, as with few objects, its averages come out a little lower.
    """
    metric = Precision(
        iou_type="bbox",
        backend="faster_coco_eval",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
        extended_summary=True,
    )
    metric.warn_on_many_detections = False
    return metric


def _cpu(row: Tensor) -> Tensor:
    return row.detach().cpu()
