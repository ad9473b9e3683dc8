"""Head-only fine-tuning, the linear probe: the head trains on what a frozen model computes."""

from torch import nn

from vitexp.regime.base import fit_head, freeze


def head(model: nn.Module, *, num_classes: int) -> nn.Module:
    """Only `model.head` trains; all else keeps its values, and stays in eval mode when the model is set to train."""
    fit_head(model, num_classes)
    freeze(model, trained=("head",))
    return model
