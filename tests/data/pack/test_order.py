"""Steps of packed images: each image once, equal on every rank, the same number of steps in every epoch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitexp import seeding
from vitexp.data.order import Place
from vitexp.data.pack.drop import Drop
from vitexp.data.pack.order import Packing, PackOrder
from vitexp.data.pack.resolution import Resolution
from vitexp.errors import ConfigError, DataError

UNIFORM = {"kind": "uniform", "of": "side", "low": 0.5, "high": 1.25, "mean": -0.5, "std": 1.0}
NONE = {"kind": "none", "mean": 0.5, "max": 0.9, "low": 0.2, "high": 0.8, "midpoint": 1.0, "width": -1.0}


def packing(drop=None, resolution=None, **options):
    shipped = {
        "patch_size": 4,
        "length": 256,
        "budget": 1024,
        "max_images": 64,
        "open_bins": 64,
        "aspect": 0.0,
        "native": False,
    }
    return Packing(
        **{**shipped, **options},
        resolution=Resolution(**{**UNIFORM, **(resolution or {})}),
        drop=Drop(**{**NONE, **(drop or {})}),
    )


def order(count=300, *, settings=None, training=True, **options):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(24, 72, (count, 2), generator=generator)
    place = Place(**{"seed": 1, **options})
    return PackOrder(sizes, torch.arange(count), place, settings or packing(), image_size=32, training=training)


def images(batches):
    return [position for _, rows, _ in batches for row in rows for position in row]


@settings(max_examples=15, deadline=None)
@given(
    world=st.integers(1, 3),
    accumulate=st.integers(1, 3),
    epoch=st.integers(0, 3),
    kind=st.sampled_from(["none", "beta", "schedule"]),
    aspect=st.sampled_from([0.0, 0.4]),
)
def test_every_image_once_over_all_ranks(world, accumulate, epoch, kind, aspect):
    ranks = [
        order(settings=packing({"kind": kind}, aspect=aspect), rank=rank, world_size=world, accumulate=accumulate)
        for rank in range(world)
    ]
    for each in ranks:
        each.set_epoch(epoch)
    batches = [list(each) for each in ranks]
    assert sorted(position for each in batches for position in images(each)) == list(range(300))
    assert {len(each) for each in batches} == {len(ranks[0])}
    for numbers in zip(*batches, strict=True):
        assert len({number for number, _, _ in numbers}) == 1
        assert len({len(rows) for _, rows, _ in numbers}) == 1, "as many sequences on each rank"
    for step in range(ranks[0].steps):
        parts = [each[step * accumulate + micro] for each in batches for micro in range(accumulate)]
        assert sum(weight for _, _, weight in parts) == pytest.approx(len(parts))
        counts = [sum(map(len, rows)) for _, rows, _ in parts]
        for (_, _, weight), count in zip(parts, counts, strict=True):
            assert weight == pytest.approx(count * len(parts) / sum(counts))


def test_no_sequence_is_overfull_and_little_is_padding():
    # With so few images the sequences that are open at the end of the epoch count.
    one = order(count=4000, settings=packing({"kind": "beta"}))
    shown, rows = one.plan(0)
    assert max(int(shown.kept[row].sum()) for row in rows) <= 256
    assert one.padding_rate < 0.03
    assert order(count=4000, settings=packing({"kind": "beta"}, open_bins=1)).padding_rate > 0.05


def test_epochs_differ_and_repeat():
    one, other = order(), order()
    plans = []
    for epoch in (0, 1, 1):
        one.set_epoch(epoch)
        plans.append(list(one))
    assert plans[1] == plans[2] != plans[0]
    other.set_epoch(1)
    assert list(other) == plans[1]


def test_a_resume_goes_on_where_it_stopped():
    whole = order()
    whole.set_epoch(2)
    resumed = order(start=(2, 2))
    assert list(resumed) == list(whole)[2:]
    resumed.set_epoch(3)
    whole.set_epoch(3)
    assert list(resumed) == list(whole)


def test_the_budget_is_kept():
    one = order(count=2000)
    rows = [len(rows) for _, rows, _ in one]
    assert len(rows) == one.steps == len(one)
    assert min(rows) >= 1024 // 256
    assert max(rows) <= 1024 // 256 + 1


def test_images_that_are_too_long_are_shrunk_and_counted():
    one = order(settings=packing(length=40))
    shown, rows = one.plan(0)
    assert shown.shrunk > 50
    assert sorted(position for row in rows for position in row) == list(range(300))
    assert int(shown.kept.max()) <= 40
    whole = order(settings=packing(length=4096)).plan(0)[0].grids
    assert (shown.grids <= whole).all()
    long = whole.prod(dim=1) > 40
    assert torch.equal(shown.grids[~long], whole[~long])
    turned = (shown.grids[long].double() / whole[long]).log().diff(dim=1)
    assert turned.abs().max() < 0.5, "the aspect stays"
    assert order(settings=packing(length=4096)).plan(0)[0].shrunk == 0


def test_evaluation_draws_nothing_and_drops_nothing():
    one = order(training=False, settings=packing({"kind": "beta"}))
    shown, rows = one.plan(0)
    assert torch.equal(shown.kept, shown.grids.prod(dim=1))
    assert shown.kept.float().mean() == pytest.approx(64, rel=0.05)
    one.set_epoch(5)
    assert [row for _, rows, _ in one for row in rows] == rows
    native, _ = order(training=False, settings=packing(native=True, length=16)).plan(0)
    sizes = order().sizes
    assert torch.equal(native.grids, (sizes / 4).round().long()), "no size is too long for evaluation"


def test_evaluation_on_several_ranks_is_every_image_once():
    ranks = [order(count=7, training=False, rank=rank, world_size=3) for rank in range(3)]
    assert sorted(position for each in ranks for position in images(each)) == list(range(7))


def test_large_images_lose_more_tokens_where_the_resolution_decides():
    """Sides of 16 to 40 pixels are 16 to 100 cells of 4 x 4: rates from 0.2 to 0.8 on a line, 0.04 around it."""
    shown, _ = order(count=2000, settings=packing({"kind": "resolution"})).plan(0)
    cells = shown.grids.prod(dim=1)
    dropped = 1 - shown.kept / cells
    line = 0.2 + 0.6 * ((cells - 16) / 84).clamp(0, 1)
    assert (dropped - line).abs().max() < 0.04 + 0.5 / 12
    assert (dropped - line).mean().abs() < 0.005


def test_draws_are_of_the_seed_in_training_only():
    keys = [order(seed=seed, training=training).plan(1)[0].keys for training in (True, False) for seed in (1, 2)]
    assert not torch.equal(keys[0], keys[1])
    assert torch.equal(keys[2], keys[3])
    assert torch.equal(keys[0], seeding.sample_keys(1, 1, torch.arange(300)))


def test_sizes_of_a_sample_do_not_depend_on_the_rest():
    few, many = order(count=10), order(count=300)
    some, all_of_them = few.plan(0)[0], many.plan(0)[0]
    assert torch.equal(some.keys, all_of_them.keys[:10])


def test_mistakes():
    with pytest.raises(ConfigError, match=r"data\.packing\.length=0"):
        packing(length=0)
    with pytest.raises(DataError, match="0 images do not suffice"):
        order(count=0, training=False)
    with pytest.raises(ConfigError, match=r"aspect=-1"):
        packing(aspect=-1)
