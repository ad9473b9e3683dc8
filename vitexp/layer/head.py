"""The classifier of any model: where it stands, and a new one in its place.

A model says where (`SupportsNewHead`); of one that does not, it is the linear layer that was registered last.
"""

from torch import nn

from vitexp.contract import SupportsLoading, SupportsNewHead


def head_name(model: nn.Module) -> str | None:
    """Name of the submodule that makes logits of features; None where there is none."""
    if isinstance(model, SupportsNewHead):
        return model.head_name or None
    linear = [name for name, module in model.named_modules() if name and isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the tensors whose shape depends on the number of classes."""
    if isinstance(model, SupportsLoading):
        return tuple(model.head_names)
    name = head_name(model)
    return () if name is None else tuple(f"{name}.{key}" for key in model.get_submodule(name).state_dict())


def num_classes_of(model: nn.Module) -> int | None:
    """K of the logits (B, K); None where the model does not say and has no linear layer."""
    if isinstance(model, SupportsNewHead):
        return model.num_classes
    name = head_name(model)
    layer = None if name is None else model.get_submodule(name)
    return layer.out_features if isinstance(layer, nn.Linear) else None


def reset_head(model: nn.Module, num_classes: int) -> None:
    """Put a zero classifier in place."""
    if isinstance(model, SupportsNewHead):
        model.reset_head(num_classes)
        return
    name = head_name(model)
    assert name is not None, "a model without a classifier is refused before"
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    model.set_submodule(name, zero_linear(old, num_classes))


def zero_linear(old: nn.Linear, num_classes: int) -> nn.Linear:
    """A linear layer that reads what `old` reads, for `num_classes`, zero as for fine-tuning (ViT, section 3.2)."""
    options = {"device": old.weight.device, "dtype": old.weight.dtype}
    new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None, **options)
    for parameter in new.parameters():
        nn.init.zeros_(parameter)
    return new
