"""Head-only fine-tuning, the linear probe: the head trains on what a frozen model computes."""

from types import MethodType
from typing import Any

from torch import Tensor, nn

from vitexp.regime.base import fit_head, freeze


def head(model: nn.Module, *, num_classes: int, cache: bool = False) -> nn.Module:
    """Only `model.head` trains; all else keeps its values, and stays in eval mode when the model is set to train.

    With `cache` the model also takes what its head reads, (B, D), which `embed_frozen(images)` computes.
    """
    fit_head(model, num_classes)
    freeze(model, trained=("head",))
    if cache:
        model.forward = MethodType(_from_features, model)
        model.embed_frozen = MethodType(_features, model)  # type: ignore[assignment]
    return model


def _from_features(model: Any, x: Tensor) -> Tensor:
    """Logits (B, K) of features (B, D), or of images (B, C, H, W) as ever."""
    logits: Tensor = model.head(x) if x.ndim == 2 else type(model).forward(model, x)
    return logits


def _features(model: Any, images: Tensor) -> Tensor:
    """The features (B, D) of images (B, C, H, W) that the head reads."""
    head, model.head = model.head, nn.Identity()
    try:
        features: Tensor = type(model).forward(model, images)
    finally:
        model.head = head
    return features
