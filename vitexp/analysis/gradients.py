"""The length of the loss's gradient in each block, without a trace in the model: no `.grad`, no changed flag."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.analysis.maps import blocks, evaluating


def block_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Length (L2) of the mean cross-entropy's gradient by block (L,), float64 on the CPU; and the loss.

    In evaluation, one image at a time. Parameters that a regime freezes count as well; NaN for a block that the loss
    does not reach, as a base that runs without a graph.
    """
    members = [list(block.parameters()) for block in blocks(model).values()]
    parameters = list(dict.fromkeys(parameter for block in members for parameter in block))
    sums: dict[nn.Parameter, Tensor] = {}
    total = 0.0
    with evaluating(model), _differentiable(parameters), torch.enable_grad():
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            loss = F.cross_entropy(model.forward(image).float(), label) / len(images)
            total += float(loss.detach())
            for parameter, slope in _slopes(loss, parameters):
                sums[parameter] = sums[parameter] + slope if parameter in sums else slope
    lengths = [_length([sums[parameter] for parameter in block if parameter in sums]) for block in members]
    return torch.tensor(lengths, dtype=torch.float64), total


def _slopes(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters that the loss depends on, each with its gradient."""
    if not loss.requires_grad:
        return []
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [(parameter, slope) for parameter, slope in zip(parameters, found, strict=True) if slope is not None]


def _length(slopes: Sequence[Tensor]) -> float:
    if not slopes:
        return float("nan")
    return float(torch.stack([slope.double().square().sum() for slope in slopes]).sum().sqrt())


@contextmanager
def _differentiable(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """All of them with a gradient inside; as they were after."""
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_()
        yield
    finally:
        for parameter, required in zip(parameters, before, strict=True):
            parameter.requires_grad_(required)
