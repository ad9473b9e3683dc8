"""The settings: what is refused, when the strong parts stop, and what mixing does."""

from dataclasses import replace

import pytest
import torch

from vitexp import seeding
from vitexp.build import make
from vitexp.config.compose import compose
from vitexp.data.augment.settings import Augment, mix
from vitexp.errors import ConfigError


def settings(*overrides: str) -> Augment:
    augment: Augment = make(compose(overrides).augment)
    return augment


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"geometry": "crop"}, "crop_flip"),
        ({"erasing_rate": 1.5}, "0 to 1"),
        ({"randaugment_magnitude": 15.0}, "0 to 10"),
        ({"mixup": -1.0}, "augment.mixup=0"),
        ({"off_epochs": -1}, "augment.off_epochs=0"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(settings("augment=basic"), **change)  # type: ignore[arg-type]


def test_the_data_set_says_which_geometry() -> None:
    assert settings("augment=basic", "data=digits").geometry == "affine"
    assert settings("augment=strong", "data=cifar100").geometry == "crop_flip"
    assert settings("augment=basic", "data=imagenet").geometry == "resized_crop_flip"
    assert settings("augment=none", "data=imagenet").geometry == "none"
    assert settings("augment=none").label_smoothing == 0
    assert settings("augment=basic").label_smoothing == settings("augment=strong").label_smoothing == 0.1


def test_the_strong_parts_stop_before_the_end_and_the_rest_stays() -> None:
    strong = settings("augment=strong", "augment.off_epochs=3")
    assert strong.at(6, 10) == strong
    for epoch in (7, 9):
        light = strong.at(epoch, 10)
        assert (light.randaugment_ops, light.erasing_rate, light.mixup, light.cutmix) == (0, 0, 0, 0)
        assert (light.geometry, light.label_smoothing) == (strong.geometry, strong.label_smoothing)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_labels_sum_to_one_and_weigh_as_the_pixels_do(mixup: float, cutmix: float) -> None:
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 16, 16)  # image i is i everywhere, and of class i
    for step in range(20):
        seeding.seed_step(0, step, stream=seeding.BATCH)
        mixed, labels = mix(images, torch.arange(8), mixup=mixup, cutmix=cutmix, num_classes=8)
        assert labels.shape == (8, 8)
        assert torch.allclose(labels.sum(1), torch.ones(8))
        assert torch.allclose(mixed.mean((1, 2, 3)), labels @ torch.arange(8.0), atol=1e-4)


def test_with_both_on_batches_take_either() -> None:
    kinds = set()
    for step in range(20):
        seeding.seed_step(0, step, stream=seeding.BATCH)
        mixed, _ = mix(torch.rand(2, 1, 8, 8).round(), torch.arange(2), mixup=0.8, cutmix=1.0, num_classes=2)
        kinds.add(bool(((mixed > 0) & (mixed < 1)).any()))
    assert kinds == {True, False}, "mixup blends pixels, CutMix copies them"
