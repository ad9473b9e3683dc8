"""Made-up images: fixed, balanced, and with a signal."""

from collections.abc import Callable

import torch

from vitexp.data.base import ImageData

Make = Callable[..., ImageData]


def test_images_do_not_depend_on_the_seed_of_the_run(data_module: Make) -> None:
    one, other = (data_module("data=fake", f"seed={seed}").source("train") for seed in (1, 2))
    assert torch.equal(one.images, other.images)  # type: ignore[union-attr]
    another = data_module("data=fake", "data.pattern=1").source("train")
    assert not torch.equal(one.images, another.images)  # type: ignore[union-attr]


def test_splits_differ_and_classes_can_be_told_apart(data_module: Make) -> None:
    module = data_module("data=fake", "data.image_size=12", "data.num_classes=3")
    train, test = module.source("train"), module.source("test")
    assert (module.train_size, module.val_size, module.test_size) == (256, 64, 64)
    assert not torch.equal(train.images[:64], test.images)  # type: ignore[union-attr]
    pixels = train.images.float().flatten(1)  # type: ignore[union-attr]
    centres = torch.stack([pixels[train.labels == label].mean(0) for label in range(3)])
    nearest = torch.cdist(test.images.float().flatten(1), centres).argmin(1)  # type: ignore[union-attr]
    assert (nearest == test.labels).float().mean() > 0.95
