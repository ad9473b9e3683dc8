"""Evaluation equals timm's to the bit; training transforms have the right shape and draw from torch's generator."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from vitexp.build import make
from vitexp.config.compose import compose
from vitexp.data.augment.settings import GEOMETRIES
from vitexp.data.augment.transform import training_transform, upsample
from vitexp.data.base import ImageData
from vitexp.data.file.image import decode_image
from vitexp.data.pixels import Pixels
from vitexp.errors import ConfigError

Make = Callable[..., ImageData]


def pixels(**changes: object) -> Pixels:
    built: Pixels = make(compose(["data=imagenet"]).data.module.pixels)
    return replace(built, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "crop", "interpolation"), [(224, 0.9, "bicubic"), (224, 0.875, "bilinear"), (160, 1.0, "bicubic")]
)
def test_evaluation_equals_timms_on_photographs(
    size: int, crop: float, interpolation: str, data_root: Callable[[str], Path], data_module: Make
) -> None:
    from timm.data import create_transform

    root = data_root("imagenet-sample") / "imagenet-sample"
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    module = data_module(
        "data=imagenet",
        f"data.root={root}",
        f"data.image_size={size}",
        f"data.crop_pct={crop}",
        f"data.interpolation={interpolation}",
        f"data.mean={mean}".replace(" ", ""),
        f"data.std={std}".replace(" ", ""),
        "data.batch_size=24",
        "data.num_workers=0",
    )
    theirs = create_transform(
        input_size=(3, size, size),
        is_training=False,
        interpolation=interpolation,
        crop_pct=crop,
        mean=tuple(mean),
        std=tuple(std),
    )
    source = module.source("test")
    images, labels = next(iter(module.test_dataloader()))
    assert labels.tolist() == list(range(24))
    for position in range(24):
        path = source.path(position)  # type: ignore[union-attr]
        expected = theirs(Image.open(path).convert("RGB"))
        assert torch.equal(images[position], expected)
        assert torch.equal(module.read_image(path), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_training_is_a_function_of_the_seed(geometry: str, channels: int, image_folder: Callable[..., Path]) -> None:
    root = image_folder("train", {"cat": 1})
    seen = pixels(image_size=24, channels=channels, mean=[0.5] * channels, std=[0.5] * channels)
    image = decode_image(root / "train/cat/000.jpg", channels=channels, max_pixels=10**6)
    augment = make(compose(["augment=strong", f"augment.geometry={geometry}"]).augment)
    transform = training_transform(augment, seen)
    results = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(seed)
        results.append(transform(image))
        assert results[-1].shape == (channels, 24, 24)
        assert results[-1].dtype == torch.uint8
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])


@pytest.mark.parametrize("size", [(1, 1), (3, 200)])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_tiny_and_thin_images_pass(size: tuple[int, int], geometry: str) -> None:
    augment = make(compose(["augment=strong", f"augment.geometry={geometry}"]).augment)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    assert training_transform(augment, pixels(image_size=16))(image).shape == (3, 16, 16)


def test_upsampling_keeps_flat_images_and_the_range() -> None:
    flat = torch.full((2, 3, 8, 8), 255.0)
    assert torch.allclose(upsample(flat, pixels(image_size=20)), torch.full((2, 3, 20, 20), 255.0))
    steps = torch.tensor([0.0, 255.0]).repeat(4).expand(1, 3, 8, 8)
    grown = upsample(steps, pixels(image_size=20))
    assert grown.min() >= 0
    assert grown.max() <= 255
    assert upsample(flat, pixels(image_size=8)) is flat


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channels": 4}, "data.channels=3"),
        ({"mean": [0.5]}, "each needs 3 numbers"),
        ({"std": [0.0, 1.0, 1.0]}, "std above 0"),
        ({"crop_pct": 1.2}, "data.crop_pct=0.9"),
        ({"interpolation": "cubic"}, "bicubic"),
    ],
)
def test_impossible_pixels_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pixels(**change)
