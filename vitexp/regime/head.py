"""Head-only fine-tuning, the linear probe: the head trains on what a frozen model computes."""

from types import MethodType

from torch import Tensor, nn

from vitexp.contract import SEE, SupportsNewHead
from vitexp.errors import ConfigError
from vitexp.layer.head import head_name
from vitexp.regime.base import freeze, require_head


def head(model: nn.Module, *, num_classes: int, cache: bool = False) -> nn.Module:
    """Only the model's head trains; all else keeps its values, and stays in eval mode when the model is set to train.

    With `cache` the model also takes what its head reads, (B, D), which `embed_frozen(images)` computes.

    Raises:
        ConfigError: the model has no head, or does not say what its head reads.
    """
    name = require_head(model, num_classes, regime="head")
    if cache and not isinstance(model, SupportsNewHead):
        raise ConfigError(
            f"regime.cache=true trains on what the head reads, and {type(model).__name__} does not say which layer that"
            f" is; use regime.cache=false (SupportsNewHead: {SEE})"
        )
    freeze(model, trained=(name,))
    if cache:
        embedding = {"forward": MethodType(_from_features, model), "embed_frozen": MethodType(_features, model)}
        vars(model).update(embedding)
    return model


def _from_features(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, K) of features (B, D), or of images (B, C, H, W) as ever."""
    head = model.get_submodule(head_name(model) or "")
    logits: Tensor = head(x) if x.ndim == 2 else type(model).forward(model, x)
    return logits


def _features(model: nn.Module, images: Tensor) -> Tensor:
    """The features (B, D) of images (B, C, H, W) that the head reads."""
    name = head_name(model) or ""
    head = model.get_submodule(name)
    model.set_submodule(name, nn.Identity())
    try:
        features: Tensor = type(model).forward(model, images)
    finally:
        model.set_submodule(name, head)
    return features
