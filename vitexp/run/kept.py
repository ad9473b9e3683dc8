"""What autograd keeps of a forward pass for its backward pass."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Kept:
    """The memory of the tensors that were kept, each storage once."""

    def __init__(self, owned: Iterable[Tensor]) -> None:
        self._owned = {tensor.untyped_storage()._cdata for tensor in owned}
        self._kept: dict[int, Tensor] = {}  # the tensors too, so that no other storage gets the number of one

    @property
    def num_bytes(self) -> int:
        """Their sum."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())

    def pack(self, tensor: Tensor) -> Tensor:
        """The hook: autograd is about to keep this tensor."""
        if (number := tensor.untyped_storage()._cdata) not in self._owned:
            self._kept[number] = tensor
        return tensor


@contextmanager
def keeping(owned: Iterable[Tensor]) -> Iterator[Kept]:
    """Count what a forward pass inside keeps, `owned` aside, which is there anyway; on any device, meta too."""
    kept = Kept(owned)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        yield kept
