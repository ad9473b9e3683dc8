"""What a step draws depends on its place in the run, not on what was drawn before."""

from types import SimpleNamespace

import torch

from vitexp.callback.step_keys import StepKeys
from vitexp.seeding import seed_step


def draw(seed: int, epoch: int, batch: int, *, rank: int = 0) -> list[float]:
    trainer = SimpleNamespace(current_epoch=epoch, num_training_batches=10, global_rank=rank)
    torch.rand(epoch + batch)  # an earlier history
    StepKeys(seed=seed).on_train_batch_start(trainer, None, None, batch)
    values: list[float] = torch.rand(4).tolist()
    return values


def test_the_same_place_draws_the_same_whatever_came_before() -> None:
    first = draw(0, 1, 3)
    torch.rand(100)
    assert draw(0, 1, 3) == first


def test_another_seed_step_epoch_or_rank_draws_otherwise() -> None:
    places = [draw(0, 1, 3), draw(1, 1, 3), draw(0, 1, 4), draw(0, 2, 3), draw(0, 1, 3, rank=1)]
    assert len({tuple(values) for values in places}) == len(places)


def test_the_key_is_seed_number_and_rank() -> None:
    seed_step(5, 23, rank=1)
    expected = torch.rand(4).tolist()
    assert draw(5, 0, 23, rank=1) == draw(5, 2, 3, rank=1) == expected
