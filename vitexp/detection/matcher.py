"""The one-to-one assignment of predictions to objects at the least cost (DETR, section 3.1, equation 1).

The cost of a pair is minus the probability of the object's class, plus the L1 distance of the boxes, minus their
generalised IoU, each with its weight. All decoder layers and images are one tensor of costs in fp32, moved to the CPU
once; SciPy solves each image's (Crouse 2016). A cost that is not finite, as a diverging run makes them, counts as very
large, so that the loss itself can say what happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitexp.detection.box import giou, to_xyxy

_HUGE = 1e9
# Of the focal cost (Deformable DETR's code, after Lin et al. 2017, section 3).
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0

Target = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """Weights of the three costs; `focal` reads the logits as independent sigmoids without a no-object class."""

    class_cost: float
    l1_cost: float
    giou_cost: float
    focal: bool = False

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes_cxcywh: Tensor, targets: Sequence[Target]) -> Tensor:
        """Matched (layer, image, query, object), int64 (4, pairs) on the device of `logits`, sorted by image.

        Args:
            logits: (L, B, Q, K + 1).
            boxes_cxcywh: (L, B, Q, 4).
            targets: of each image `labels` (n,) and `boxes_cxcywh` (n, 4).

        With more objects than queries, each query gets one and the rest of the objects none.
        """
        counts = [len(target["labels"]) for target in targets]
        costs = self.costs(logits, boxes_cxcywh, targets).cpu().numpy()
        rows = []
        for image, count in enumerate(counts):
            for layer in range(len(logits) if count else 0):
                queries, objects = map(torch.from_numpy, linear_sum_assignment(costs[layer, image, :, :count]))
                rows.append(
                    torch.stack([torch.full_like(queries, layer), torch.full_like(queries, image), queries, objects])
                )
        matched = torch.cat(rows, dim=1) if rows else torch.empty(4, 0, dtype=torch.int64)
        return matched.to(logits.device)

    def costs(self, logits: Tensor, boxes_cxcywh: Tensor, targets: Sequence[Target]) -> Tensor:
        """(L, B, Q, T) in fp32, T the most objects in an image; columns beyond an image's own mean nothing."""
        labels, boxes = padded(targets)  # (B, T), (B, T, 4)
        predicted = boxes_cxcywh.float()[..., None, :]  # (L, B, Q, 1, 4)
        wanted = boxes[:, None]  # (B, 1, T, 4)
        index = labels[None, :, None].expand(*logits.shape[:3], -1)  # (L, B, Q, T)
        by_class = self._class_costs(logits.float()).gather(-1, index)
        by_distance = (predicted - wanted).abs().sum(-1)
        by_overlap = -giou(to_xyxy(predicted), to_xyxy(wanted))
        cost = self.class_cost * by_class + self.l1_cost * by_distance + self.giou_cost * by_overlap
        return cost.nan_to_num(_HUGE, posinf=_HUGE, neginf=-_HUGE)

    def _class_costs(self, logits: Tensor) -> Tensor:
        """The cost of each class for a query: (L, B, Q, K + 1)."""
        if not self.focal:
            return -logits.softmax(-1)
        share = logits.sigmoid()
        found = FOCAL_ALPHA * (1 - share) ** FOCAL_GAMMA * -(share + 1e-8).log()
        missed = (1 - FOCAL_ALPHA) * share**FOCAL_GAMMA * -(1 - share + 1e-8).log()
        return found - missed


def padded(targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
    """Labels (B, T) and fp32 boxes (B, T, 4) of the images, filled up with class 0 and boxes of zeros."""
    labels = torch.nn.utils.rnn.pad_sequence([target["labels"] for target in targets], batch_first=True)
    boxes = [target["boxes_cxcywh"].float() for target in targets]
    return labels, torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True)
