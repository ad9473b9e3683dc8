"""Small detectors and their references; not a test itself."""

from functools import partial
from typing import Any

import torch

from vitexp.attention.softmax import Softmax
from vitexp.model import resnet
from vitexp.model.detr import Detr

SOFTMAX = partial(Softmax, qkv_bias=True, temperature=1.0)


def tiny_resnet(*, blocks: int = 1, dilated: bool = False) -> resnet.ResNet:
    """A bottleneck ResNet of `blocks` blocks a stage, its norms unlike the identity."""
    torch.manual_seed(0)
    resnet._BLOCKS[0] = [blocks] * 4
    try:
        model = resnet.ResNet(depth=0, dilated=dilated)
    finally:
        del resnet._BLOCKS[0]
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        else:
            buffer.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
    return model


def tiny_detr(*, backbone: Any = None, seed: int = 0, **options: Any) -> Detr:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "attention": SOFTMAX,
        "position": "sine",
        "dim": 32,
        "num_heads": 4,
        "depths": [2, 2],
        "mlp_dim": 48,
        "num_queries": 7,
        "num_classes": 5,
        "refine_boxes": False,
    }
    return Detr(backbone=backbone or tiny_resnet(), **(settings | options))


def padded_batch(*, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of different size in one batch, and the padding of the second."""
    torch.manual_seed(seed)
    images, padding = torch.randn(2, 3, 96, 128), torch.zeros(2, 96, 128, dtype=torch.bool)
    padding[1, 64:] = True
    padding[1, :, 96:] = True
    return images.masked_fill(padding[:, None], 0.0), padding
