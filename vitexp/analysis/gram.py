"""Cosines between vectors that belong together, summed image by image; nothing but sums is kept.

For vectors x_1 .. x_L of one token the Gram matrix X X^T holds every pair's product and, on its diagonal, every
squared length, so all L^2 cosines cost one small matrix product.
"""

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny


def cosines(vectors: Tensor) -> Tensor:
    """(..., L, n) vectors to the (..., L, L) cosines of their pairs; 0 beside a vector of length 0."""
    gram = vectors @ vectors.transpose(-2, -1)  # (..., L, L)
    length = gram.diagonal(dim1=-2, dim2=-1).clamp_min(_TINY).sqrt()  # (..., L)
    return gram.div_(length.unsqueeze(-1)).div_(length.unsqueeze(-2))


class CosineSums:
    """Mean cosine and share of cosines above `tau`, for each pair among L: float64 (L, L), NaN where never compared."""

    def __init__(self, *, tau: float) -> None:
        self.tau = tau
        self._total: Tensor | None = None
        self._above: Tensor | None = None
        self._count: Tensor | None = None

    def add(self, vectors: Tensor, *, size: int, members: Tensor | None = None) -> None:
        """Add one image.

        Args:
            vectors: (..., l, n), the leading axes what is averaged over.
            size: L.
            members: (l,), which of the L these are; None for all.
        """
        pairs = cosines(vectors).flatten(0, -3)  # (vectors, l, l)
        if self._total is None or self._above is None or self._count is None:
            self._total, self._above, self._count = pairs.new_zeros(3, size, size, dtype=torch.float64).unbind(0)
        members = torch.arange(size) if members is None else members
        place = torch.meshgrid(members, members, indexing="ij")
        self._total[place] += pairs.sum(0, dtype=torch.float64)
        self._above[place] += (pairs > self.tau).sum(0)
        self._count[place] += len(pairs)

    @property
    def mean(self) -> Tensor:
        """(L, L), on the CPU."""
        assert self._total is not None
        assert self._count is not None
        return (self._total / self._count).cpu()

    @property
    def ratio(self) -> Tensor:
        """(L, L), on the CPU."""
        assert self._above is not None
        assert self._count is not None
        return (self._above / self._count).cpu()
