"""The order of an epoch is a permutation that any process can compute, from any batch on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitexp.data.order import EpochOrder, Place
from vitexp.errors import ConfigError, DataError


def order(count: int = 100, batch_size: int = 8, **changes: object) -> EpochOrder:
    settings: dict[str, object] = {"seed": 0} | changes
    shuffle, drop_last = (bool(settings.pop(key, True)) for key in ("shuffle", "drop_last"))
    place = Place(**settings)  # type: ignore[arg-type]
    return EpochOrder(count, batch_size, place, shuffle=shuffle, drop_last=drop_last)


def positions(of: EpochOrder) -> list[int]:
    return torch.cat([part for _, part in of]).tolist()


def test_an_epoch_is_a_permutation_and_each_another() -> None:
    whole = order(drop_last=False)
    first = positions(whole)
    whole.set_epoch(1)
    second = positions(whole)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert positions(order(drop_last=False)) == first
    assert positions(order(drop_last=False, seed=1)) != first


def test_without_shuffle_the_order_is_the_sets_own() -> None:
    assert positions(order(shuffle=False, drop_last=False)) == list(range(100))


@given(
    count=st.integers(8, 200),
    accumulate=st.sampled_from([1, 2]),
    world_size=st.sampled_from([1, 2, 4]),
    drop_last=st.booleans(),
)
def test_samples_of_a_step_do_not_depend_on_how_it_is_cut(
    count: int, accumulate: int, world_size: int, drop_last: bool
) -> None:
    def steps(accumulate: int, world_size: int) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for rank in range(world_size):
            cut = order(count, accumulate=accumulate, rank=rank, world_size=world_size, drop_last=drop_last)
            for batch, part in cut:
                assert len(part)
                assert batch < len(cut)
                found.setdefault(batch // accumulate, []).extend(part.tolist())
        return {step: sorted(samples) for step, samples in found.items()}

    assert steps(accumulate, world_size) == steps(1, 1)


@pytest.mark.parametrize("start_batch", range(12))
def test_a_resume_goes_on_at_its_batch_in_that_epoch_only(start_batch: int) -> None:
    plain, resumed = order(), order(start=(3, start_batch))
    assert len(resumed) == len(plain) == 12
    for epoch in (3, 4):
        plain.set_epoch(epoch)
        resumed.set_epoch(epoch)
        expected = [(batch, part.tolist()) for batch, part in plain]
        skipped = start_batch if epoch == 3 else 0
        assert [(batch, part.tolist()) for batch, part in resumed] == expected[skipped:]


def test_an_incomplete_batch_is_dropped_or_small() -> None:
    assert [len(part) for _, part in order(20)] == [8, 8]
    assert [len(part) for _, part in order(20, drop_last=False)] == [8, 8, 4]


@pytest.mark.parametrize(("drop_last", "batches"), [(True, 48), (False, 50)])
def test_the_length_of_an_epoch_is_in_micro_batches(drop_last: bool, batches: int) -> None:
    cut = order(200, accumulate=2, drop_last=drop_last)  # 25 steps, the last of them of two micro-batches too
    assert len(cut) == len(list(cut)) == 50
    assert len(order(199, accumulate=2, drop_last=drop_last)) == batches


def test_the_number_of_a_micro_batch_counts_over_the_run() -> None:
    cut, numbers = order(accumulate=2), []
    for epoch in range(3):
        cut.set_epoch(epoch)
        numbers += [cut.step(batch) for batch, _ in cut]
    assert numbers == list(range(3 * 24))


def test_no_batch_at_all_is_an_error_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match="0 batches an epoch: 7 samples, batches of 8"):
        order(7)
    with pytest.raises(DataError, match="0 samples"):
        order(0, drop_last=False)


def test_a_batch_that_cannot_be_cut_is_an_error_with_one_that_can() -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size=12"):
        order(batch_size=10, accumulate=2, world_size=3)
