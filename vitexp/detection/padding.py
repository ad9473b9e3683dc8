"""Images of different sizes in one batch: which pixels are none of an image's own."""

from collections.abc import Sequence

import torch
from torch import Tensor


def padding_of(sizes: Sequence[Tensor], shape: tuple[int, int]) -> Tensor | None:
    """Bool (B, H, W), True = padded pixel, for images of `sizes` (height, width) in a batch of `shape` (H, W).

    Every image stands in the top left corner. None where no image is padded: a model then needs no mask.
    """
    heights, widths = torch.stack(list(sizes)).unbind(1)  # (B,) each
    down = torch.arange(shape[0], device=heights.device)[None, :, None] >= heights[:, None, None]
    across = torch.arange(shape[1], device=widths.device)[None, None, :] >= widths[:, None, None]
    padding = down | across  # (B, H, W)
    return padding if bool(padding.any()) else None
