"""The digits: sizes, split, and the numbers in the configuration."""

from collections.abc import Callable

import pytest
import torch

from vitexp.data.base import ImageData

Make = Callable[..., ImageData]


def test_sizes_and_strata(data_module: Make) -> None:
    module = data_module("data=digits")
    assert (module.train_size, module.val_size, module.test_size) == (1293, 144, 360)
    for split, low, high in (("train", 124, 134), ("val", 13, 15), ("test", 34, 38)):
        counts = torch.bincount(module.source(split).labels)
        assert low <= counts.min()
        assert counts.max() <= high


def test_the_split_is_a_partition_and_ignores_the_seed(data_module: Make) -> None:
    one, other = data_module("data=digits", "seed=1"), data_module("data=digits", "seed=2")
    keys = [one.source(split).keys for split in ("train", "val", "test")]
    assert torch.equal(torch.cat(keys).sort().values, torch.arange(1797))
    assert all(torch.equal(k, other.source(s).keys) for k, s in zip(keys, ("train", "val", "test"), strict=True))


def test_the_configured_mean_and_std_are_the_training_images(data_module: Make) -> None:
    module = data_module("data=digits")
    pixels = torch.cat([module.source(split).images for split in ("train", "val")]).double() / 255  # type: ignore[union-attr]
    assert pixels.mean().item() == pytest.approx(module.mean[0], abs=1e-3)
    assert pixels.std().item() == pytest.approx(module.std[0], abs=1e-3)
    assert module.channels == 1
    assert module.image_size == 8


def test_images_are_scikit_learns(data_module: Make) -> None:
    from sklearn.datasets import load_digits

    source = data_module("data=digits").source("test")
    first = int(source.keys[0])
    theirs = torch.from_numpy(load_digits().images[first])
    assert torch.allclose(source.images[0, 0].double() * 16 / 255, theirs, atol=0.04)  # type: ignore[union-attr]
    assert int(source.labels[0]) == load_digits().target[first]


def test_grey_digits_as_rgb(data_module: Make) -> None:
    module = data_module(
        "data=digits", "data.channels=3", "data.mean=[0.5,0.4,0.3]", "data.std=[0.2,0.2,0.2]", "data.image_size=16"
    )
    images, _ = next(iter(module.train_dataloader()))
    assert images.shape[1:] == (3, 16, 16)
    torch.testing.assert_close(images[:, 0] * 0.2 + 0.5, images[:, 2] * 0.2 + 0.3)
