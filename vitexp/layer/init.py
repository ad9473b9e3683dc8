"""Starting values that several layers share (Glorot and Bengio 2010; LeCun et al. 1998)."""

import math

from torch import nn


def xavier_(linear: nn.Linear, *, parts: int = 1) -> None:
    """Xavier-uniform weights and a zero bias, in place.

    A linear layer that stacks `parts` equal projections (queries, keys, values) starts as each of them would on its
    own: the fan-out is that of one part.
    """
    bound = math.sqrt(6 / (linear.in_features + linear.out_features / parts))
    nn.init.uniform_(linear.weight, -bound, bound)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def lecun_(conv: nn.Conv2d) -> None:
    """Weights from N(0, 1 / fan-in) and a zero bias, in place: unit-variance inputs keep their variance."""
    nn.init.normal_(conv.weight, std=conv.weight[0].numel() ** -0.5)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
