"""Detections from queries: every query is one, its class the likeliest besides no-object; no NMS, no threshold.

As the authors do for average precision (section 4, "Inference"). With the focal loss a query may stand for several
classes, and the best 100 of all pairs are kept (Deformable DETR's code).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitexp.detection.box import to_pixels

MAX_DETECTIONS = 100


def detections(
    logits: Tensor, boxes_cxcywh: Tensor, sizes: Sequence[Tensor], *, focal: bool = False
) -> list[dict[str, Tensor]]:
    """Each image's `boxes_xyxy` (n, 4) in the pixels of `sizes`, `scores` (n,), `labels` (n,) and `queries` (n,).

    Args:
        logits: (B, Q, K + 1) of the last layer.
        boxes_cxcywh: (B, Q, 4).
        sizes: (height, width) of each original image, (2,) each.
        focal: whether the model was trained with the focal loss.
    """
    logits, boxes = logits.float(), boxes_cxcywh.float()
    if focal:
        shares = logits[..., :-1].sigmoid()  # (B, Q, K)
        scores, flat = shares.flatten(1).topk(min(MAX_DETECTIONS, shares[0].numel()))
        queries, labels = flat // shares.shape[-1], flat % shares.shape[-1]
    else:
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        queries = torch.arange(logits.shape[1], device=logits.device).expand_as(labels)
    chosen = boxes.gather(1, queries[..., None].expand(-1, -1, 4))
    return [
        {"boxes_xyxy": to_pixels(box, size), "scores": score, "labels": label, "queries": query}
        for box, size, score, label, query in zip(chosen, sizes, scores, labels, queries, strict=True)
    ]
