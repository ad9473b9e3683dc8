"""Random numbers as functions: equal where the coordinates are equal, unrelated where one differs."""

import torch
from torch.nn import functional as F

from vitexp import seeding


def test_order_is_a_permutation_of_its_epoch() -> None:
    first, second = seeding.permutation(0, 1, 1000), seeding.permutation(0, 2, 1000)
    assert sorted(first.tolist()) == list(range(1000))
    assert torch.equal(first, seeding.permutation(0, 1, 1000))
    assert (first == second).float().mean() < 0.02


def test_a_samples_numbers_do_not_depend_on_its_batch() -> None:
    whole = seeding.uniform(seeding.sample_keys(3, 5, torch.arange(100)), 7)
    part = seeding.uniform(seeding.sample_keys(3, 5, torch.tensor([90, 4])), 7)
    assert torch.equal(part, whole[[90, 4]])


def test_uniform_is_uniform_and_streams_are_unrelated() -> None:
    keys = seeding.sample_keys(0, 0, torch.arange(200_000))
    draws = torch.stack([seeding.uniform(keys, k) for k in range(3)])
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws[0], 20, 0, 1)
    assert (counts - 10_000).abs().max() < 500
    assert torch.corrcoef(draws).fill_diagonal_(0).abs().max() < 0.01


def test_neighbouring_seeds_epochs_and_steps_differ() -> None:
    keys = {seeding.mix(s, e, i) for s in range(10) for e in range(10) for i in range(10)}
    assert len(keys) == 1000
    assert all(0 <= key < 2**63 for key in keys)


def test_a_steps_dropout_is_a_function_of_seed_step_and_rank() -> None:
    def drop(*coordinates: int, rank: int = 0) -> torch.Tensor:
        torch.rand(3)  # whatever was drawn before does not matter
        seeding.seed_step(*coordinates, rank=rank)
        return F.dropout(torch.ones(1000))

    assert torch.equal(drop(0, 5), drop(0, 5))
    assert not torch.equal(drop(0, 5), drop(0, 6))
    assert not torch.equal(drop(0, 5), drop(1, 5))
    assert not torch.equal(drop(0, 5), drop(0, 5, rank=1))
