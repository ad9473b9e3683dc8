"""The parts of regimes: freezing without drift, a head that fits the data, demands on a model, rates of parts.

A regime other than `full` leaves on the model it returns what `HasBase` lists: saving and the optimizer read it.
"""

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import cast

from torch import nn

from vitexp.attention.base import flags_of
from vitexp.checkpoint.fingerprint import fingerprint
from vitexp.contract import SEE, HasBase, SupportsForgetting, SupportsNewHead, SupportsTokens
from vitexp.errors import ConfigError
from vitexp.layer.head import head_name, num_classes_of
from vitexp.model.encoder import Block, TokenEncoder


def freeze(model: nn.Module, *, trained: tuple[str, ...]) -> None:
    """Freeze all of `model` in place but the submodules and parameters named in `trained`.

    Frozen parameters take no gradient. Frozen modules are in eval mode and stay so through `model.train()`, which
    Lightning calls on the whole module; the mode of `model` itself follows the call, as does that of a module around a
    trained one.
    """
    mark(model)
    _freeze(model, "", trained)


def _freeze(module: nn.Module, prefix: str, trained: tuple[str, ...]) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        parameter.requires_grad_(f"{prefix}{name}" in trained)
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if path in trained:
            child.requires_grad_(True)
        elif any(other.startswith(f"{path}.") for other in trained):
            _freeze(child, f"{path}.", trained)
        else:
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
        if isinstance(part, SupportsForgetting):
            part.forget()
    return module


def mark(model: nn.Module) -> None:
    """Note on a model what it is before the regime changes it; the first note stays."""
    if not isinstance(model, HasBase):
        marks = {"fingerprint": fingerprint(model), "plain_names": frozenset(model.state_dict())}
        vars(model).update(marks, rates={}, earlier=())


def fit_head(model: nn.Module, num_classes: int) -> None:
    """Replace a head for another number of classes by a new zero one, in place.

    A model that does not say where its head is was built for its classes.
    """
    if isinstance(model, SupportsNewHead) and model.num_classes != num_classes:
        model.reset_head(num_classes)


def require_head(model: nn.Module, num_classes: int, *, regime: str) -> str:
    """The name of the head, which is for `num_classes` now.

    Raises:
        ConfigError: the model has no classifier that the regime can train.
    """
    fit_head(model, num_classes)
    name = head_name(model)
    if name is None or num_classes_of(model) != num_classes:
        raise ConfigError(
            f"regime={regime} trains a classifier and {type(model).__name__} ends in no linear layer for {num_classes}"
            f" classes; use regime=full, or let the model say where its head is (SupportsNewHead: {SEE})"
        )
    return name


def require_tokens(model: nn.Module, *, regime: str, class_token: bool = True, mask: bool = False) -> TokenEncoder:
    """The model, if it has what the regime works on.

    Args:
        model: any.
        regime: for the message.
        class_token: whether a class token is needed.
        mask: whether the attention must take a mask, besides context.

    Raises:
        ConfigError: the model has no tokens, no class token, or an attention without a map.
    """
    if not isinstance(model, SupportsTokens) or any(type(block) is not Block for block in _blocks(model)):
        raise ConfigError(
            f"regime={regime} adds tokens to those of an encoder and {type(model).__name__} is none; it needs a ViT; "
            "use model=vit_ti16 or another ViT, or regime=full, head or bias, which work on every model"
            f" (SupportsTokens: {SEE})"
        )
    encoder = cast(TokenEncoder, model)
    if class_token and dict(model.named_parameters(recurse=False)).get("class_token") is None:
        raise ConfigError(
            f"regime={regime} trains a class token and this model reads the mean of its tokens; it needs a model with "
            "a class token; use model=vit_ti16, or model.pool=token with a checkpoint trained so, or regime=head"
        )
    for block in encoder.blocks:
        variant = flags_of(block.get_submodule("attention"))
        if not (variant.takes_context and (not mask or variant.takes_mask)):
            raise ConfigError(
                f"regime={regime} needs an attention with a map; attention={variant.name} has none; "
                "use softmax, cosine or reattention"
            )
    return encoder


def _blocks(model: nn.Module) -> Sequence[nn.Module | None]:
    """The members of the model's `blocks`; one None where it has none."""
    found = dict(model.named_children()).get("blocks")
    return list(found) if isinstance(found, nn.ModuleList) else [None]


def require_init(class_token: str) -> None:
    """Raise ConfigError for an unknown start of a class token."""
    if class_token not in ("copy", "random"):
        raise ConfigError(f"regime.class_token={class_token} is unknown; a new one is a copy or random; use copy")


def set_rates(
    model: nn.Module,
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
    rates = {
        name: (lr_scale[part], weight_decay[part])
        for name, parameter in model.named_parameters()
        for part, prefixes in parts.items()
        if parameter.requires_grad and name.startswith(tuple(prefixes))
    }
    vars(model).update(rates=rates)
