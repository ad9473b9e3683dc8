"""Packed batches hold the right pixels of every image once, from memory and from files, with any number of workers."""

from dataclasses import fields

import pytest
import torch
from torch.nn import functional as F

from vitexp.batch import PackedImages
from vitexp.data.augment.settings import Augment
from vitexp.data.reader import FileReader
from vitexp.errors import ConfigError, DataError

MEMORY = ("data=fake", "model=navit_nano", "data.sizes=[96,24,24]", "data.batch_size=16")
STILL = ("augment=none", "data.packing.resolution.low=1.0", "data.packing.resolution.high=1.0")


def batches(module, epoch=0, split="train"):
    loader = getattr(module, f"{split}_dataloader")()
    iterator = iter(loader)  # as Lightning does: before it sets the epoch
    loader.sampler.set_epoch(epoch)
    return list(iterator)


def equal(some, others):
    return len(some) == len(others) and all(
        torch.equal(a.patches, b.patches) and torch.equal(c, d) for (a, c), (b, d) in zip(some, others, strict=True)
    )


def test_each_image_once_with_its_label_and_pixels(data_module):
    module = data_module(*MEMORY, *STILL)
    source, seen = module.source("train"), []
    order = module.train_dataloader().sampler
    for (packed, labels), (_, rows, _) in zip(batches(module), order, strict=True):
        positions = [position for row in rows for position in row]
        assert isinstance(packed, PackedImages)
        assert torch.equal(labels, source.labels[positions])
        assert len(packed) == len(positions)
        images = packed.pictures(range(len(packed)), 32)
        assert torch.equal(images, module.pixels.normalise(source.images[positions]))
        assert packed.patches[packed.owner < 0].abs().sum() == 0
        seen += positions
    assert sorted(seen) == list(range(96))


def test_sizes_are_drawn_and_tokens_dropped(data_module):
    module = data_module(*MEMORY, "augment=basic", "data.packing.drop.kind=beta", "data.packing.aspect=0.3")
    (packed, _), *_ = batches(module)
    grids = {tuple(grid) for grid in packed.grids[packed.owner >= 0].tolist()}
    assert (packed.owner < 0).any()
    assert packed.patches[packed.owner < 0].abs().max() == 0
    assert len(grids) > 5
    assert any(height != width for height, width in grids)
    for row, counts in enumerate(packed.lengths):
        start = 0
        for count in counts:
            height, width = packed.grids[row, start].tolist()
            places = packed.places[row, start : start + count]
            assert len(places.unique(dim=0)) == count <= height * width
            assert (places < torch.tensor([height, width])).all()
            start += count


def test_a_resized_image_is_the_image_resized(data_module):
    module = data_module(
        *MEMORY, "augment=none", "data.packing.resolution.low=0.75", "data.packing.resolution.high=0.75"
    )
    order = module.train_dataloader().sampler
    (packed, _), *_ = batches(module)
    _, rows, _ = next(iter(order))
    native = module.source("train").images[rows[0][:1]].float()
    small = F.interpolate(native, (24, 24), mode="bicubic", antialias=True).clamp(0, 255)
    torch.testing.assert_close(packed.pictures([0], 24), module.pixels.normalise(small))


def test_resume_and_seeds(data_module):
    words = (*MEMORY, "augment=basic", "data.packing.drop.kind=beta")
    whole, resumed = batches(data_module(*words), 2), data_module(*words)
    resumed.start = (2, 1)
    torch.manual_seed(77)
    assert equal(batches(resumed, 2), whole[1:])
    assert not equal(batches(data_module(*words, "seed=5"), 2), whole)


def test_evaluation_is_every_image_once(data_module):
    module = data_module(*MEMORY, "augment=basic")
    for size, cells in ((32, 64), (16, 16)):
        module = data_module(*MEMORY, f"data.image_size={size}", "model.stem.patch_size=4")
        tested = batches(module, split="test")
        assert sum(len(packed) for packed, _ in tested) == 24
        assert sum(packed.num_tokens for packed, _ in tested) == 24 * cells
        assert module.sample("test", 4, seed=0)[0].shape == (4, 3, size, size)


@pytest.fixture
def folder(image_folder):
    return image_folder(".", {"cat": 20, "dog": 12})


def files(data_module, root, *words):
    small = ("data=folder", "model=navit_nano", "augment=basic", f"data.root={root}", "data.image_size=32")
    return data_module(*small, "data.batch_size=8", "data.num_workers=0", *words)


def test_files_at_native_size(data_module, folder):
    words = ("data.packing.resolution.kind=native", "augment.flip_rate=0.0", "data.packing.native=true")
    module = files(data_module, folder, *words)
    loader = module.train_dataloader()
    assert isinstance(loader.reader, FileReader)
    seen = 0
    for split in ("train", "test"):
        for packed, labels in batches(module, split=split):
            assert {tuple(grid) for grid in packed.grids[packed.owner >= 0].tolist()} == {(10, 12)}  # 40 x 48 pixels
            assert len(labels) == len(packed)
            seen += len(packed) if split == "train" else 0
    assert seen == module.train_size


def test_workers_change_nothing(data_module, folder, monkeypatch):
    monkeypatch.setattr("vitexp.data.loader.usable_cores", lambda: 1)
    alone, helped = files(data_module, folder), files(data_module, folder, "data.num_workers=1")
    loader = helped.train_dataloader()
    assert loader.reader.batches.num_workers == 1
    assert loader.reader.batches.persistent_workers, "they stay for the next epoch"
    assert not helped.test_dataloader().reader.batches.persistent_workers
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        assert equal(list(loader), batches(alone, epoch))


class Bright(Augment):
    """Every pixel is the same random value."""

    def change(self, image):
        return torch.full_like(image, int(torch.randint(1, 256, ())))


def test_an_augmentation_of_ones_own_changes_files_too(data_module, folder):
    first, again = files(data_module, folder), files(data_module, folder)
    for module in (first, again):
        module.augment = Bright(**{field.name: getattr(module.augment, field.name) for field in fields(Augment)})
    assert equal(batches(first), batches(again))
    packed, _ = batches(first)[0]
    shown = packed.patches[packed.owner >= 0]
    assert shown.flatten(1).std(1).max() < 2, "but for the channels' own means"
    assert len(shown.mean(1).unique()) > 1
    assert not equal(batches(first, epoch=1), batches(first))


def test_a_file_that_cannot_be_read_is_named(data_module, folder):
    (folder / "cat" / "000.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"000\.jpg"):
        batches(files(data_module, folder))


def test_mixing_is_refused(data_module):
    with pytest.raises(ConfigError, match=r"augment\.mixup=0\.8 .*; use augment=basic"):
        batches(data_module(*MEMORY, "augment=strong"))


def test_an_unknown_sampler(data_module):
    with pytest.raises(ConfigError, match=r"data\.sampler=pakced is unknown"):
        data_module("data=fake", "data.sampler=pakced")
