"""Full fine-tuning, and training from scratch."""

from torch import nn

from vitexp.regime.base import fit_head


def full(model: nn.Module, *, num_classes: int) -> nn.Module:
    """Everything trains that the model itself does not keep fixed; a head of another size is replaced by a zero one."""
    fit_head(model, num_classes)
    return model
