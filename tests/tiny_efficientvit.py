"""A small EfficientViT that several test folders build; not a test itself."""

from functools import partial
from typing import Any

import torch
from torch import nn

from vitexp.attention.cascaded import Cascaded
from vitexp.model.efficientvit import EfficientViT


def tiny_efficientvit(*, seed: int = 0, **changed: Any) -> EfficientViT:
    """At 64 pixels with stride 8: maps 8, 4 and 2, two windows a side in the first stage, the last filled up."""
    options: dict[str, Any] = {
        "image_size": 64,
        "in_channels": 3,
        "stem_stride": 8,
        "dims": [16, 24, 32],
        "depths": [1, 1, 2],
        "num_heads": [2, 3, 2],
        "kernels": [5, 3, 3],
        "window_size": 5,
        "mlp_ratio": 2.0,
        "merge_ratio": 4.0,
        "attention": partial(Cascaded, key_dim=16, cascade=True),
        "num_classes": 5,
    }
    torch.manual_seed(seed)
    return EfficientViT(**options | changed)


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """Evaluation mode, with running statistics, norms and attention biases that no fresh model has."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias_table", "attention_biases")):
            nn.init.normal_(parameter)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        nn.init.normal_(norm.running_mean, std=0.2)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model.eval()
