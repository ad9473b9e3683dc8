"""`bs=auto`: into how many micro-batches a step must be cut so that it fits into the memory that is free.

The global batch stays as configured, and with it the result of the run; only `trainer.accumulate` is found. The
activations that a step keeps for its backward pass are added up on the meta device, which costs no memory, so nothing
has to run out of it first. (On a CPU, what runs out is killed: there is no error to catch.)
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vitexp.errors import ResourceError
from vitexp.machine.memory import free_on

# What a step needs beside what it keeps: buffers of kernels, the images themselves, fragmentation.
_BESIDE = 1.3
# Of what is free; the rest is for data, metrics and pictures.
_USED = 0.8


def find_accumulate(
    model: nn.Module, shape: tuple[int, int, int], *, batch: int, averaged: bool, device: torch.device
) -> int:
    """The smallest number of micro-batches whose steps fit, a divisor of `batch`.

    Args:
        model: in any mode, anywhere.
        shape: of an image, (C, H, W).
        batch: images of a step.
        averaged: whether an average of the weights is kept.
        device: what the model will train on.

    Raises:
        ResourceError: not even single images fit.
    """
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    # Gradients, two moments of the optimizer, and the average of the weights.
    fixed = trained * (3 + averaged)
    free = free_on(device)
    needed = math.inf
    for accumulate in _divisors(batch):
        needed = fixed + _BESIDE * kept_bytes(model, (batch // accumulate, *shape))
        if needed <= _USED * free:
            return accumulate
    raise ResourceError(
        f"a step of one image at {shape[1]}x{shape[2]} needs about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} "
        f"GiB are free; lower size=, choose a smaller model= or regime=head, or free memory"
    )


def kept_bytes(model: nn.Module, shape: tuple[int, int, int, int]) -> int:
    """Bytes that the forward pass in training of images (B, C, H, W) keeps for its backward pass, parameters aside."""
    state = {name: tensor.detach().to("meta") for name, tensor in model.named_buffers()}
    for name, parameter in model.named_parameters():
        state[name] = parameter.detach().to("meta").requires_grad_(parameter.requires_grad)
    training = [module.training for module in model.modules()]
    model.train()
    try:
        with keeping(state.values()) as kept:
            functional_call(model, state, (torch.empty(shape, device="meta"),))
    finally:
        for module, was in zip(model.modules(), training, strict=True):
            module.training = was
    return kept.num_bytes


def _divisors(number: int) -> Iterator[int]:
    return (divisor for divisor in range(1, number + 1) if number % divisor == 0)


class SavedTensors:
    """The memory of the tensors that were kept, each storage once."""

    def __init__(self, owned: Iterable[Tensor]) -> None:
        self._owned = {tensor.untyped_storage()._cdata for tensor in owned}
        self._kept: dict[int, Tensor] = {}  # the tensors too, so that no other storage gets the number of one

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())

    def pack(self, tensor: Tensor) -> Tensor:
        """The hook: autograd is about to keep this tensor."""
        if (number := tensor.untyped_storage()._cdata) not in self._owned:
            self._kept[number] = tensor
        return tensor


@contextmanager
def keeping(owned: Iterable[Tensor]) -> Iterator[SavedTensors]:
    """Count what a forward pass inside keeps, `owned` aside, which is there anyway; on any device, meta too."""
    kept = SavedTensors(owned)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        yield kept
