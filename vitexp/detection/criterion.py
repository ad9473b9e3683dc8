"""The loss of set prediction: classes for all queries, boxes for the matched ones (DETR, section 3.1, equation 2).

Cross-entropy counts a no-object query `no_object_weight` times and is a weighted mean; L1 and 1 - GIoU are sums divided
by the number of objects. Every decoder layer is matched and scored on its own with the same weights (section 3.2).

Deviation: across processes both divisors are means over all of them, the authors' only the second. So the loss does
not depend on the number of devices. `focal` is Deformable DETR's class loss (Zhu et al. 2021, after Lin et al. 2017):
independent sigmoids over the K classes, the no-object logit unused, divided by the number of objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional as F

from vitexp.detection.box import giou, to_xyxy
from vitexp.detection.matcher import FOCAL_ALPHA, FOCAL_GAMMA, Matcher, Target

# Without a query there is nothing to divide.
_TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """Weights of the parts of the loss."""

    matcher: Matcher
    class_weight: float
    l1_weight: float
    giou_weight: float
    no_object_weight: float

    def __call__(
        self, logits: Tensor, boxes_cxcywh: Tensor, targets: Sequence[Target], *, alone: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss summed over layers, the last layer's (class, L1, GIoU) unweighted, and what was matched.

        Args:
            logits: (L, B, Q, K + 1), the last class meaning no object.
            boxes_cxcywh: (L, B, Q, 4).
            targets: of each image `labels` (n,) and `boxes_cxcywh` (n, 4).
            alone: divide by this process's objects, without asking the others: in evaluation one of them may have a
                batch less, and the rest would wait for it for ever.
        """
        matched = self.matcher(logits, boxes_cxcywh, targets)
        parts = self.parts(logits, boxes_cxcywh, targets, matched, alone=alone)
        return self.weigh(parts), parts[-1].detach(), matched

    def weigh(self, parts: Tensor) -> Tensor:
        """(L, 3) to the loss, a scalar."""
        return (parts * parts.new_tensor([self.class_weight, self.l1_weight, self.giou_weight])).sum()

    def parts(
        self,
        logits: Tensor,
        boxes_cxcywh: Tensor,
        targets: Sequence[Target],
        matched: Tensor,
        *,
        alone: bool = False,
    ) -> Tensor:
        """(L, 3): class, L1 and GIoU loss of each layer, in fp32."""
        logits, boxes = logits.float(), boxes_cxcywh.float()
        layer, image, query, _ = matched
        wanted_labels, wanted_boxes = _matched_targets(matched, targets)
        num_boxes, total_weight = self._divisors(logits, targets, alone=alone)
        ids = torch.full(logits.shape[:3], logits.shape[-1] - 1, device=logits.device)  # (L, B, Q)
        ids[layer, image, query] = wanted_labels
        by_class = self._focal(logits, ids) / num_boxes if self.matcher.focal else self._entropy(logits, ids)
        found = boxes[layer, image, query]  # (pairs, 4)
        distance = (found - wanted_boxes).abs().sum(-1)
        apart = 1 - giou(to_xyxy(found), to_xyxy(wanted_boxes))
        by_layer = logits.new_zeros(len(logits), 2).index_add(0, layer, torch.stack([distance, apart], dim=-1))
        classes = by_class if self.matcher.focal else by_class / total_weight
        return torch.cat([classes[:, None], by_layer / num_boxes], dim=-1)

    def _entropy(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Weighted sum of each layer's cross-entropies: (L,)."""
        weights = logits.new_ones(logits.shape[-1])
        weights[-1] = self.no_object_weight
        losses = F.cross_entropy(logits.flatten(0, 2), ids.flatten(), weight=weights, reduction="none")
        return losses.view(len(logits), -1).sum(-1)

    def _focal(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Sum of each layer's focal losses over the K classes: (L,)."""
        wanted = F.one_hot(ids, logits.shape[-1])[..., :-1].to(logits.dtype)
        logits = logits[..., :-1]
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        wrong = (logits.sigmoid() - wanted).abs()  # 1 - p of the right answer
        balance = FOCAL_ALPHA * wanted + (1 - FOCAL_ALPHA) * (1 - wanted)
        return (balance * wrong**FOCAL_GAMMA * entropy).sum((1, 2, 3))

    def _divisors(self, logits: Tensor, targets: Sequence[Target], *, alone: bool) -> tuple[Tensor, Tensor]:
        """Objects, at least 1, and the sum of the class weights of all queries; means over processes."""
        counts = [len(target["labels"]) for target in targets]
        queries = logits.shape[2]
        matched = sum(min(count, queries) for count in counts)
        weight = matched + (len(counts) * queries - matched) * self.no_object_weight
        sums = logits.new_tensor([float(sum(counts)), weight])
        sums = sums if alone else mean_over_processes(sums)
        return sums[0].clamp(min=1), sums[1].clamp(min=_TINY)


def class_error(logits: Tensor, targets: Sequence[Target], matched: Tensor) -> Tensor:
    """Percent of the last layer's matched queries whose likeliest class is wrong; 0 without objects. For logging."""
    layer, image, query, _ = matched
    labels, _ = _matched_targets(matched, targets)
    last = layer == len(logits) - 1
    if not last.any():
        return logits.new_zeros(())
    wrong = logits[layer[last], image[last], query[last]].argmax(-1) != labels[last]
    return 100 * wrong.float().mean()


def cardinality_error(logits: Tensor, targets: Sequence[Target]) -> Tensor:
    """Mean over images of |queries that see an object - objects|, of the last layer; for logging only."""
    seen = (logits[-1].argmax(-1) != logits.shape[-1] - 1).sum(-1).float()  # (B,)
    return (seen - seen.new_tensor([len(target["labels"]) for target in targets])).abs().mean()


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of each value over all processes of a distributed run; the values themselves in a single one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    torch.distributed.all_reduce(values)
    return values / torch.distributed.get_world_size()


def _matched_targets(matched: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
    """Labels (pairs,) and fp32 boxes (pairs, 4) of the matched objects."""
    _, image, _, number = matched
    counts = torch.tensor([0, *(len(target["labels"]) for target in targets)], device=matched.device)
    row = counts.cumsum(0)[image] + number
    labels = torch.cat([target["labels"] for target in targets])
    boxes = torch.cat([target["boxes_cxcywh"] for target in targets]).float()
    return labels[row], boxes[row]
