"""The samples that are held out: fixed for a data set, stratified by class, the same for every run and seed."""

import torch
from torch import Tensor

from vitexp import seeding


def hold_out(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Split the positions of `labels` (N,) into (kept, held out), both ascending.

    round(N * fraction) samples are held out, shared among the classes by largest remainder; a class always keeps one.
    Within a class they are chosen by a hash of the position: no generator is involved, so the split outlives any
    change of torch's or NumPy's.
    """
    keys = seeding.sample_keys(seeding.SPLIT, 0, torch.arange(len(labels)))
    by_hash = keys.argsort(stable=True)
    by_class = by_hash[labels[by_hash].argsort(stable=True)]
    sizes = torch.bincount(labels)
    held = torch.zeros(len(labels), dtype=torch.bool)
    start = 0
    for size, quota in zip(sizes.tolist(), _quotas(sizes, fraction).tolist(), strict=True):
        held[by_class[start : start + quota]] = True
        start += size
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _quotas(sizes: Tensor, fraction: float) -> Tensor:
    """The number held out of each class: int64, shape of `sizes`."""
    shares = sizes.double() * fraction
    quotas = shares.floor().long()
    missing = round(float(shares.sum())) - int(quotas.sum())
    remainders = torch.where(sizes - quotas > 1, shares - quotas, -1.0)
    quotas[remainders.argsort(descending=True, stable=True)[:missing]] += 1
    return quotas.minimum((sizes - 1).clamp(min=0))
