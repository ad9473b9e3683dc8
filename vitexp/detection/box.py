"""Boxes in the two forms of this package, and how much two of them overlap.

`boxes_cxcywh` are centre, width and height as shares of the image, `boxes_xyxy` two corners. Overlap is the
generalised IoU of Rezatofighi et al. 2019, equation 1: below 0 where boxes stand apart, so that there is
a gradient.
"""

import torch
from torch import Tensor

# Of two boxes without area: 0 / 0 would be NaN, and one NaN in a cost stops the assignment.
_TINY = 1e-12


def to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) -> (..., 4)."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) -> (..., 4)."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def to_pixels(boxes_cxcywh: Tensor, size: Tensor) -> Tensor:
    """Shares of an image (..., 4) to corners in the pixels of one of `size` (2,), (height, width)."""
    height, width = size.to(boxes_cxcywh.dtype).unbind(-1)
    return to_xyxy(boxes_cxcywh) * torch.stack([width, height, width, height], dim=-1)


def area(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) -> (...); 0 for a box whose corners are in the wrong order."""
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0).prod(-1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU in [-1, 1] of corners (..., 4) and (..., 4), which broadcast: of pairs, or of all with all."""
    shared = torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], dim=-1)
    hull = torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], dim=-1)
    intersection = area(shared)
    union = area(a) + area(b) - intersection
    around = area(hull)
    return intersection / union.clamp(min=_TINY) - (around - union) / around.clamp(min=_TINY)
