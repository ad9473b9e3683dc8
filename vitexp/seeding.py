"""Randomness as a pure function of (seed, epoch, sample index, step).

Nothing in vitexp draws from a random state that a resumed run would have to restore: the order of an epoch, the
augmentation of a sample and the dropout of a step are computed from their coordinates. So the same seed gives the same
run with any number of workers, and a checkpoint holds no random state.

The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
generators", OOPSLA 2014), in plain integers for single keys and in int64 tensors, which wrap around, for batches.
"""

import random

import numpy as np
import torch
from torch import Tensor

_GOLDEN, _MULTIPLY_1, _MULTIPLY_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1

# One number for each purpose, so that streams never coincide.
ORDER, SAMPLE, BATCH, STEP, SPLIT = 1, 2, 3, 4, 5


def mix(*parts: int) -> int:
    """Hash integers into one of [0, 2**63), a valid seed everywhere."""
    state = 0
    for part in parts:
        state = (state + (part & _WORD) + _GOLDEN) & _WORD
        state = ((state ^ (state >> 30)) * _MULTIPLY_1) & _WORD
        state = ((state ^ (state >> 27)) * _MULTIPLY_2) & _WORD
        state ^= state >> 31
    return state >> 1


def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """The order of one epoch: a permutation of range(count), int64 on the CPU."""
    generator = torch.Generator().manual_seed(mix(seed, ORDER, epoch))
    return torch.randperm(count, generator=generator)


def sample_keys(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Augmentation keys of the samples `indices` (B,) in an epoch: int64 (B,), equal in any batch they land in."""
    return _mix_tensor(indices.to(torch.int64) + _signed(mix(seed, SAMPLE, epoch)))


def uniform(keys: Tensor, draw: int) -> Tensor:
    """Draw number `draw` of each key: float32 in [0, 1), shape of `keys`, on its device."""
    bits = _mix_tensor(keys + _signed(mix(draw)))
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24


def seed_sample(seed: int, epoch: int, index: int) -> None:
    """Seed torch, NumPy and `random` for one sample, in the worker that decodes it."""
    key = mix(seed, SAMPLE, epoch, index)
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)  # noqa: NPY002  (libraries draw from NumPy's global state)
    torch.default_generator.manual_seed(key)


def seed_step(seed: int, step: int, *, rank: int = 0, stream: int = STEP) -> None:
    """Seed torch's generators in use for one micro-batch: dropout, drop path, mixup.

    Args:
        seed: the run's seed.
        step: global number of the micro-batch.
        rank: process number, so that ranks drop different units.
        stream: `STEP` for the model's draws, `BATCH` for draws over the whole batch.
    """
    key = mix(seed, stream, step, rank)
    torch.default_generator.manual_seed(key)  # torch.manual_seed takes 40 times as long
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed(key)


def _signed(word: int) -> int:
    """The int64 with the same bits as a 64-bit word."""
    word &= _WORD
    return word - (1 << 64) if word >> 63 else word


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical shift: int64 `>>` would copy the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix_tensor(bits: Tensor) -> Tensor:
    bits = bits + _signed(_GOLDEN)
    bits = (bits ^ _shift_right(bits, 30)) * _signed(_MULTIPLY_1)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(_MULTIPLY_2)
    return bits ^ _shift_right(bits, 31)
