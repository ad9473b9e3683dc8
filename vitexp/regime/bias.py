"""BitFit: Ben Zaken, Goldberg, Ravfogel, "BitFit: Simple Parameter-efficient Fine-tuning ..." (ACL 2022)."""

from collections.abc import Mapping

from torch import nn

from vitexp.errors import ConfigError
from vitexp.regime.base import freeze, require_head, set_rates


def bias(
    model: nn.Module,
    *,
    num_classes: int,
    lr_scale: Mapping[str, float],
    weight_decay: Mapping[str, float | None],
) -> nn.Module:
    """The head and every bias train: of linear maps, convolutions and norms; running statistics stay as they are.

    Raises:
        ConfigError: the model has no bias besides the head's.
    """
    head = require_head(model, num_classes, regime="bias")
    freeze(model, trained=(head,))
    names = [name for name, parameter in model.named_parameters() if _is_bias(name) and not parameter.requires_grad]
    if not names:
        raise ConfigError(
            f"regime=bias trains biases and {type(model).__name__} has none besides its head's; it needs a model with "
            "biases; use regime=head or full"
        )
    for name in names:
        model.get_parameter(name).requires_grad_(True)
    set_rates(model, {"head": [f"{head}."], "bias": names}, lr_scale=lr_scale, weight_decay=weight_decay)
    return model


def _is_bias(name: str) -> bool:
    last = name.rsplit(".", 1)[-1]
    return last == "bias" or last.endswith("_bias")
