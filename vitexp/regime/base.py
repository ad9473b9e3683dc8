"""The parts of regimes: freezing without drift, a head that fits the data, demands on a model, rates of parts.

A regime other than `full` leaves three marks on the model it returns, which saving reads: `fingerprint` of the frozen
base, `plain_names` of the base's tensors, and `rates`, which the optimizer's groups follow.
"""

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

from torch import nn

from vitexp.checkpoint.fingerprint import fingerprint
from vitexp.errors import ConfigError
from vitexp.model.encoder import Block, TokenEncoder


def freeze(model: nn.Module, *, trained: tuple[str, ...]) -> None:
    """Freeze all of `model` in place but the children and parameters named in `trained`.

    Frozen parameters take no gradient. Frozen modules are in eval mode and stay so through `model.train()`, which
    Lightning calls on the whole module; the mode of `model` itself follows the call.
    """
    mark(model)
    for name, parameter in model.named_parameters(recurse=False):
        parameter.requires_grad_(name in trained)
    for name, child in model.named_children():
        if name in trained:
            child.requires_grad_(True)
            continue
        child.requires_grad_(False)
        keep_in_eval(child)


def keep_in_eval(module: nn.Module) -> None:
    """Set a module, with all in it, to evaluate for good: `train()` of it or of what holds it changes no mode.

    What its parts computed once for evaluation they `forget` then, as they do outside. Saving reads the mark
    `stays_in_eval`: no buffer in there moves.
    """
    module.eval()
    # Attributes of the instance, so that state-dict names stay as they are and copies keep them.
    module.train = MethodType(_stay_in_eval, module)  # type: ignore[method-assign]
    module.stays_in_eval = True  # type: ignore[assignment]


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    for part in module.modules() if mode else ():
        if callable(forget := getattr(part, "forget", None)):
            forget()
    return module


def mark(model: Any) -> None:
    """Note on a model what it is before the regime changes it; the first note stays."""
    if not hasattr(model, "fingerprint"):
        model.fingerprint = fingerprint(model)
        model.plain_names = frozenset(model.state_dict())


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


def require_tokens(model: Any, *, regime: str, class_token: bool = True, mask: bool = False) -> TokenEncoder:
    """The model, if it has what the regime works on.

    Args:
        model: any.
        regime: for the message.
        class_token: whether a class token is needed.
        mask: whether the attention must take a mask, besides context.

    Raises:
        ConfigError: the model has no tokens, no class token, or an attention without a map.
    """
    if not isinstance(model, TokenEncoder) or any(type(block) is not Block for block in model.blocks):
        raise ConfigError(
            f"regime={regime} adds tokens to those of an encoder and {type(model).__name__} is none; it needs a ViT; "
            "use model=vit_ti16 or another ViT, or regime=full, head or bias, which work on every model"
        )
    if class_token and getattr(model, "class_token", None) is None:
        raise ConfigError(
            f"regime={regime} trains a class token and this model reads the mean of its tokens; it needs a model with "
            "a class token; use model=vit_ti16, or model.pool=token with a checkpoint trained so, or regime=head"
        )
    for block in model.blocks:
        variant = type(block.attention)
        if not (getattr(variant, "takes_context", False) and (not mask or getattr(variant, "takes_mask", False))):
            raise ConfigError(
                f"regime={regime} needs an attention with a map; attention={variant.__name__.lower()} has none; "
                "use softmax, cosine or reattention"
            )
    return model


def require_init(class_token: str) -> None:
    """Raise ConfigError for an unknown start of a class token."""
    if class_token not in ("copy", "random"):
        raise ConfigError(f"regime.class_token={class_token} is unknown; a new one is a copy or random; use copy")


def set_rates(
    model: Any,
    parts: Mapping[str, Sequence[str]],
    *,
    lr_scale: Mapping[str, float],
    weight_decay: Mapping[str, float | None],
) -> None:
    """Tell the optimizer how each part learns: `model.rates[name] = (share of lr, weight decay or None)`.

    Args:
        model: gets the attribute.
        parts: part -> prefixes of its parameters' names.
        lr_scale: part -> share of `lr=`.
        weight_decay: part -> its own; None is the optimizer's usual rule.
    """
    model.rates = {
        name: (lr_scale[part], weight_decay[part])
        for name, parameter in model.named_parameters()
        for part, prefixes in parts.items()
        if parameter.requires_grad and name.startswith(tuple(prefixes))
    }
