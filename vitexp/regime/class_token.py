"""Head and class token: the least that changes what the frozen encoder looks for (Sandler et al. 2022, section 4)."""

from collections.abc import Mapping
from typing import cast

from torch import nn

from vitexp.regime.base import fit_head, freeze, require_init, require_tokens, set_rates


def class_token(
    model: nn.Module,
    *,
    num_classes: int,
    class_token: str,
    std: float,
    lr_scale: Mapping[str, float],
    weight_decay: Mapping[str, float | None],
) -> nn.Module:
    """`head` and `class_token` train. The other tokens attend to the class token, so the base's output changes.

    Args:
        model: with a class token.
        num_classes: of the head.
        class_token: `copy` starts at the trained one, `random` at N(0, std).
        std: of a random start.
        lr_scale, weight_decay: of `head` and `class_token`.
    """
    require_init(class_token)
    encoder = require_tokens(model, regime="class_token")
    fit_head(encoder, num_classes)
    freeze(encoder, trained=("head", "class_token"))
    if class_token == "random":
        nn.init.normal_(cast(nn.Parameter, encoder.class_token), std=std)
    set_rates(
        encoder,
        {"head": ["head."], "class_token": ["class_token"]},
        lr_scale=lr_scale,
        weight_decay=weight_decay,
    )
    return encoder
