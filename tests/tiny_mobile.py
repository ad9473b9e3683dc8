"""Small MobileViTs, and weights that tell tensors apart, for several test folders; not a test itself."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitexp.attention.separable import Separable
from vitexp.attention.softmax import Softmax
from vitexp.model.mobilevit import MobileViT
from vitexp.model.mobilevitv2 import MobileViTV2

XXS = {"channels": [16, 16, 24, 48, 64, 80, 320], "counts": [1, 3], "dims": [64, 80, 96]}
V2_050 = {"channels": [16, 32, 64, 128, 192, 256], "counts": [1, 2], "dims": [64, 96, 128]}
SMALL = {"channels": [4, 8, 8, 12, 16, 16, 24], "counts": [1, 2], "dims": [8, 12, 16]}
SMALL_V2 = {"channels": [4, 8, 8, 16, 16, 24], "counts": [1, 2], "dims": [8, 8, 12]}


def common(geometry: dict[str, Any], depths: list[int]) -> dict[str, Any]:
    return {
        "channels": geometry["channels"],
        "residuals": {"expansion": 2, "counts": geometry["counts"]},
        "blocks": {"dims": geometry["dims"], "depths": depths},
    }


def mobilevit(geometry: dict[str, Any] | None = None, **options: Any) -> MobileViT:
    torch.manual_seed(0)
    settings = {
        "image_size": 64,
        "in_channels": 3,
        "num_classes": 5,
        "stem_stride": 8,
        "num_heads": 4,
        "mlp_ratio": 2.0,
        "attention": partial(Softmax, qkv_bias=True, temperature=1.0),
    }
    shape = common(geometry or SMALL, [2, 4, 3] if geometry else [1, 2, 1])
    return MobileViT(**{**settings, **shape, **options})


def mobilevitv2(geometry: dict[str, Any] | None = None, **options: Any) -> MobileViTV2:
    torch.manual_seed(0)
    settings = {
        "image_size": 64,
        "in_channels": 3,
        "num_classes": 5,
        "stem_stride": 8,
        "num_heads": 4,
        "mlp_ratio": 2.0,
        "attention": partial(Separable, qkv_bias=True),
    }
    shape = common(geometry or SMALL_V2, [2, 4, 3] if geometry else [1, 2, 1])
    return MobileViTV2(**{**settings, **shape, **options})


@torch.no_grad()
def trained(model: nn.Module, seed: int = 0) -> Any:
    """Random affine values and running statistics, so that no two channels are alike and no norm is an identity."""
    torch.manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(std=0.3)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.normal_(mean=float(name.endswith("weight")), std=0.2)
        elif tensor.is_floating_point():
            tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5)
    return model.eval()


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value; the logits must differ between classes and images to say anything."""
    assert theirs.std(0).min() > 0
    assert theirs.std(1).min() > 1e-3
    return float((ours - theirs).abs().max() / theirs.abs().max())
