"""What regimes share: freezing without drift, and a head that fits the data."""

from types import MethodType
from typing import Any

from torch import nn

from vitexp.errors import ConfigError


def freeze(model: nn.Module, *, trained: tuple[str, ...]) -> None:
    """Freeze all of `model` in place but the children and parameters named in `trained`.

    Frozen parameters take no gradient. Frozen modules are in eval mode and stay so through `model.train()`, which
    Lightning calls on the whole module; the mode of `model` itself follows the call.
    """
    for name, parameter in model.named_parameters(recurse=False):
        parameter.requires_grad_(name in trained)
    for name, child in model.named_children():
        if name in trained:
            child.requires_grad_(True)
            continue
        child.requires_grad_(False)
        child.eval()
        # An attribute of the instance, so that state-dict names stay as they are and copies keep it.
        child.train = MethodType(_stay_in_eval, child)  # type: ignore[method-assign]


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def fit_head(model: Any, num_classes: int) -> None:
    """Replace a head for another number of classes by a new zero one, in place.

    Raises:
        ConfigError: the model has no classifier to replace.
    """
    if not hasattr(model, "reset_head"):
        raise ConfigError(
            f"the regime trains a classifier and {type(model).__name__} has none; it needs a model with a head; "
            "use a classification model such as model=vit_ti16"
        )
    if model.num_classes != num_classes:
        model.reset_head(num_classes)
