"""LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), equation 3, through peft."""

from collections.abc import Mapping, Sequence

from torch import nn

from vitexp.errors import ConfigError, require_extra
from vitexp.regime.base import freeze, require_head, set_rates


def lora(
    model: nn.Module,
    *,
    num_classes: int,
    rank: int,
    alpha: int,
    targets: Sequence[str],
    lr_scale: Mapping[str, float],
    weight_decay: Mapping[str, float | None],
) -> nn.Module:
    """The head trains, and a low-rank change W + (alpha / rank) B A of each linear layer named in `targets`.

    B starts at zero, so the model starts as it was.

    Args:
        model: any with linear layers of these names.
        num_classes: of the head.
        rank, alpha: of the change.
        targets: last parts of the layers' names, such as qkv_projection.
        lr_scale, weight_decay: of `head` and `lora`.

    Raises:
        ConfigError: peft is not installed, or the model has no such layer.
    """
    require_extra("lora", "peft", asked="regime=lora")
    from peft import LoraConfig, inject_adapter_in_model

    head = require_head(model, num_classes, regime="lora")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not any(name.rsplit(".", 1)[-1] in targets for name in linear):
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise ConfigError(
            f"regime.targets={list(targets)} names no linear layer of {type(model).__name__}; "
            f"it has {', '.join(known)}; use regime.targets=[{known[0]}]"
        )
    freeze(model, trained=(head,))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), bias="none")
    inject_adapter_in_model(config, model)
    names = [name for name, _ in model.named_parameters() if ".lora_" in name]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}.") or name in names)
    set_rates(model, {"head": [f"{head}."], "lora": names}, lr_scale=lr_scale, weight_decay=weight_decay)
    return model.eval()
