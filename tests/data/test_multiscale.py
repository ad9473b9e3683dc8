"""Batches of several sizes: the authors' sizes and numbers of images, equal on all ranks, each image once."""

import pytest
import torch

from vitexp.data.multiscale import MultiScale, MultiScaleOrder, composition, divisible
from vitexp.data.order import Place
from vitexp.errors import ConfigError

SHIPPED = {"low": 0.625, "high": 1.25, "count": 5, "divisor": 4, "base": "nominal", "multiple": 1}


def scales(**options):
    return MultiScale(**{**SHIPPED, **options})


def order(count=1000, batch_size=32, settings=None, **options):
    place = Place(**{"seed": 3, **options})
    return MultiScaleOrder(count, batch_size, place, settings or scales(), image_size=32)


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        (256, {"divisor": 32}, [(160, 327), (192, 227), (256, 128), (288, 101), (320, 81)]),
        (
            224,
            {"divisor": 32, "low": 160 / 224, "high": 320 / 224},
            [(160, 250), (192, 174), (224, 128), (256, 98), (288, 77), (320, 62)],
        ),
        (32, {"divisor": 8, "low": 0.5}, [(16, 512), (24, 227), (32, 128), (40, 81)]),
    ],
)
def test_the_authors_pairs(size, options, expected):
    assert scales(**options).pairs(size, 128) == expected


def test_the_other_base_and_multiples():
    by_text = scales(divisor=32, base="largest").pairs(256, 128)
    assert by_text[-1] == (320, 128)
    assert by_text[0] == (160, 512)
    assert all(images % 8 == 0 for _, images in scales(multiple=8).pairs(32, 128))
    assert all(images % 6 == 0 for _, images in scales(multiple=3).pairs(32, 128, parts=2))
    assert scales().pairs(32, 1)[-1][1] == 1
    assert [side for side, _ in scales(count=2).pairs(32, 128)] == [20, 32, 40], "both ends, and the nominal side"
    assert [side for side, _ in scales(count=1).pairs(32, 128)] == [20, 32]


def test_batches_are_rounded_down_to_what_devices_and_processes_share():
    exact = [327, 227, 128, 101, 81]
    for multiple, parts in ((1, 1), (8, 1), (1, 4), (3, 2), (50, 2)):
        pairs, unit = scales(divisor=32, multiple=multiple).pairs(256, 128, parts=parts), multiple * parts
        assert [images for _, images in pairs] == [max(images - images % unit, unit) for images in exact]
    assert scales(high=1.875).pairs(32, 116)[-1] == (60, 33), "32.9956, as the authors round to two digits first"


def test_divisible():
    assert [divisible(value, 32) for value in (160, 200, 240, 280, 10)] == [160, 192, 256, 288, 32]
    assert divisible(47, 32) == 64, "32 is less than nine tenths of it"


def test_the_last_batch_may_fit_exactly():
    assert composition(10, [(32, 5)], 0) == [(32, 5), (32, 5)]
    assert composition(9, [(32, 5), (48, 2)], 0)[-1] in ((32, 5), (48, 2))
    assert 9 - sum(images for _, images in composition(9, [(32, 5), (48, 2)], 0)) < 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ranks_have_one_schedule_and_share_the_images(accumulate):
    ranks = [order(rank=rank, world_size=4, accumulate=accumulate) for rank in range(4)]
    for each in ranks:
        each.set_epoch(2)
    assert len({len(each) for each in ranks}) == 1
    assert len({tuple(each.image_size(2, batch) for batch in range(len(each))) for each in ranks}) == 1
    batches = [list(each) for each in ranks]
    for numbers in zip(*batches, strict=True):
        assert len({(number, len(positions)) for number, positions in numbers}) == 1
    seen = torch.cat([positions for each in batches for _, positions in each])
    assert len(seen.unique()) == len(seen) > 1000 - 32


def test_every_batch_is_as_large_as_its_size_says():
    one, allowed = order(), dict(scales().pairs(32, 32))
    for epoch in (0, 1):
        one.set_epoch(epoch)
        batches = list(one)
        assert len(batches) == len(one) == len(one.steps)
        for batch, positions in batches:
            assert len(positions) == allowed[one.image_size(epoch, batch)]
    sizes = [[one.image_size(epoch, batch) for batch in range(len(one))] for epoch in (0, 1)]
    assert sizes[0] != sizes[1]
    assert sorted(sizes[0]) == sorted(sizes[1]), "so that every epoch has as many steps"
    assert len(set(sizes[0])) == 5


def test_a_resume_goes_on_where_it_stopped():
    whole, resumed = order(), order(start=(2, 3))
    whole.set_epoch(2)
    expected = list(whole)[3:]
    resumed.set_epoch(2)
    got = list(resumed)
    assert [batch for batch, _ in got] == [batch for batch, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(got, expected, strict=True))


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_images_arrive_at_the_size_of_their_batch(kind, data_module, image_folder):
    words = ["data=fake", "data.sizes=[100,8,8]"]
    if kind == "folder":
        root = image_folder(".", {"cat": 30, "dog": 20})
        words = ["data=folder", f"data.root={root}", "data.image_size=32", "data.num_workers=0"]
    module = data_module(
        *words, "data.sampler=multi_scale", "data.batch_size=8", "augment=basic", "model=mobilevit_xxs"
    )
    loader = module.train_dataloader()
    assert isinstance(loader.sampler, MultiScaleOrder)
    loader.sampler.set_epoch(1)
    shapes = [images.shape for images, _ in loader]
    assert len(shapes) == len(loader)
    assert [shape[-1] for shape in shapes] == [loader.sampler.image_size(1, batch) for batch in range(len(loader))]
    assert {(shape[-1], shape[0]) for shape in shapes} <= set(scales().pairs(32, 8))
    images, _ = next(iter(module.val_dataloader()))
    assert images.shape[-1] == 32


def test_mistakes():
    with pytest.raises(ConfigError, match="base=smallest is unknown; use nominal or largest"):
        scales(base="smallest")
    with pytest.raises(ConfigError, match=r"low=2\.0 high=1\.25"):
        scales(low=2.0)
    with pytest.raises(ConfigError, match="3 images are fewer than the smallest batch"):
        order(count=3)
