"""Batched augmentation: keyed by sample, not by batch, and doing what its words say."""

from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from vitexp import seeding
from vitexp.build import make
from vitexp.config.compose import compose
from vitexp.data.augment.on_device import BatchAugment, _cut_by_numpy, _cut_by_torch, erase
from vitexp.data.augment.randaugment import BLENDED, GEOMETRIC, OPERATIONS, UNSIGNED, _step, randaugment
from vitexp.data.augment.settings import GEOMETRIES, Affine, Augment
from vitexp.data.augment.transform import training_transform
from vitexp.data.pixels import Pixels

PIXELS = Pixels(
    image_size=32,
    channels=3,
    mean=[0.5, 0.4, 0.3],
    std=[0.2, 0.2, 0.2],
    crop_pct=1.0,
    interpolation="bicubic",
    max_pixels=10**6,
)


def strong(geometry: str = "crop_flip") -> Augment:
    augment: Augment = make(compose(["augment=strong", f"augment.geometry={geometry}"]).augment)
    return augment


def photographs(count: int = 64, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(count, channels, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, [32, 32], mode="bilinear").to(torch.uint8)


def augmenter(augment: Augment, images: Tensor | None = None, seed: int = 0) -> BatchAugment:
    images = photographs() if images is None else images
    return BatchAugment(images, torch.arange(len(images)), augment=augment, pixels=PIXELS, seed=seed)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_is_augmented_the_same_in_any_batch(geometry: str, channels: int) -> None:
    augment = strong(geometry)
    pixels = replace(PIXELS, channels=channels, mean=[0.5] * channels, std=[0.2] * channels)
    images = photographs(channels=channels)
    batches = BatchAugment(images, torch.arange(64), augment=augment, pixels=pixels, seed=0)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    together = batches(order, 5, augment)
    for chunk in (1, 7, 32):
        apart = torch.cat([batches(part, 5, augment) for part in order.split(chunk)])
        assert torch.equal(apart, together)
    assert together.dtype == torch.uint8
    assert together.shape == images.shape


def test_epochs_and_seeds_differ() -> None:
    augment, everything = strong(), torch.arange(64)
    first = augmenter(augment)(everything, 0, augment)
    assert not torch.equal(first, augmenter(augment)(everything, 1, augment))
    assert not torch.equal(first, augmenter(augment, seed=1)(everything, 0, augment))


def test_draws_belong_to_the_sample_and_not_to_its_place_in_the_split() -> None:
    augment, images = strong(), photographs()
    whole = augmenter(augment, images)(torch.tensor([40, 50]), 0, augment)
    split = BatchAugment(images[40:], torch.arange(40, 64), augment=augment, pixels=PIXELS, seed=0)
    assert torch.equal(split(torch.tensor([0, 10]), 0, augment), whole)


@pytest.mark.parametrize("cut_by", [_cut_by_numpy, _cut_by_torch])  # of the CPU, and of every other device
def test_crop_flip_cuts_windows_of_the_padded_image(cut_by: Callable[..., Tensor]) -> None:
    images = photographs(8)
    table = torch.nn.functional.pad(images, [4] * 4)
    rows, columns = torch.tensor([0, 4, 8, 3]), torch.tensor([8, 4, 0, 1])
    mirrored = torch.tensor([False, True, False, True])
    cut = cut_by(table, (32, 32), torch.tensor([5, 1, 1, 0]), rows, columns, mirrored)
    for i, index in enumerate([5, 1, 1, 0]):
        window = table[index, :, rows[i] : rows[i] + 32, columns[i] : columns[i] + 32]
        assert torch.equal(cut[i], window.flip(-1) if mirrored[i] else window)
    assert torch.equal(cut[1], images[1].flip(-1))


def test_geometries_leave_the_mean_of_many_images_and_move_nearly_all() -> None:
    images = photographs(512)
    for geometry in ("affine", "crop_flip", "resized_crop_flip"):
        augment = replace(strong(geometry), randaugment_ops=0, erasing_rate=0.0)
        moved = augmenter(augment, images)(torch.arange(512), 0, augment)
        assert sum(torch.equal(a, b) for a, b in zip(moved, images, strict=True)) < 20
        assert abs(moved.float().mean() - images.float().mean()) < 20


def test_no_geometry_and_no_amounts_leave_images_alone() -> None:
    images = photographs()
    settings = replace(strong("none"), randaugment_ops=0, erasing_rate=0.0)
    assert torch.equal(augmenter(settings)(torch.arange(64), 0, settings), images)
    still = replace(settings, geometry="affine", affine=replace(settings.affine, rotation=0.0, shift=0.0, scale=0.0))
    assert torch.equal(augmenter(still)(torch.arange(64), 0, still), images)
    whole = replace(settings, geometry="resized_crop_flip", min_area=1.0, flip_rate=0.0)
    shifted = augmenter(whole)(torch.arange(64), 0, whole)
    assert (shifted.float() - images.float()).abs().mean() < 20, "only the aspect ratio is left to change"


def test_erasing_paints_one_box_of_the_stated_area_at_the_stated_rate() -> None:
    images, keys = torch.full((4000, 3, 32, 32), 9, dtype=torch.uint8), torch.arange(4000)
    erased = erase(images, seeding.sample_keys(0, 0, keys), rate=0.25, colour=[100.0, 101.0, 102.0]) != 9
    assert erased.flatten(1).any(1).float().mean() == pytest.approx(0.25, abs=0.03)
    for mask in erased[erased.flatten(1).any(1)][:200]:
        assert torch.equal(mask[0], mask[2])
        rows, columns = mask[0].any(1), mask[0].any(0)
        assert torch.equal(mask[0], rows.unsqueeze(1) & columns), "the box is a rectangle"
        assert 0.01 < mask[0].float().mean() < 0.4


def torchvision_operation(image: Tensor, name: str, sign: float, magnitude: int) -> Tensor:
    """The same operation by torchvision's RandAugment at magnitude 3 x ours of its 31 bins."""
    from torchvision.transforms import v2

    words = {"autocontrast": "AutoContrast"} | {
        n: n.title().replace("_", "") for n in OPERATIONS if n != "autocontrast"
    }
    reference = v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR, fill=[0.0, 0.0, 0.0])
    space, signed = reference._AUGMENTATION_SPACE[words[name]]
    values = space(31, 32, 32)
    amount = 0.0 if values is None else float(values[3 * magnitude])
    amount = amount * sign if signed else amount
    changed: Tensor = reference._apply_image_or_video_transform(
        image, words[name], amount, interpolation=v2.InterpolationMode.BILINEAR, fill=reference._fill
    )
    return changed


@pytest.mark.parametrize("name", [*BLENDED, *UNSIGNED])
def test_colour_operations_equal_torchvisions(name: str) -> None:
    images, signs = photographs(6), torch.tensor([1.0, -1.0] * 3)
    changed = _step(images, torch.full((6,), OPERATIONS.index(name)), signs, 0.9, [0.0] * 3)
    expected = [torchvision_operation(x, name, float(s), 9) for x, s in zip(images, signs, strict=True)]
    assert torch.equal(changed, torch.stack(expected))


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations_agree_with_torchvisions(name: str) -> None:
    images, signs = photographs(6), torch.tensor([1.0, -1.0] * 3)
    changed = _step(images, torch.full((6,), OPERATIONS.index(name)), signs, 0.5, [0.0] * 3)
    expected = torch.stack([torchvision_operation(x, name, float(s), 5) for x, s in zip(images, signs, strict=True)])
    wrong_way = torch.stack([torchvision_operation(x, name, -float(s), 5) for x, s in zip(images, signs, strict=True)])
    # torchvision moves by whole pixels and cuts bilinear edges another way; the wrong sign is far off.
    off = (changed.float() - expected.float()).abs().mean()
    assert off < 8
    assert off < 0.3 * (changed.float() - wrong_way.float()).abs().mean()


def test_every_operation_is_drawn_about_as_often() -> None:
    keys = seeding.sample_keys(0, 0, torch.arange(14_000))
    chosen = (seeding.uniform(keys, 32) * len(OPERATIONS)).long()
    assert torch.bincount(chosen).tolist() == pytest.approx([1000] * 14, abs=150)


def test_magnitude_zero_leaves_shape_and_most_pixels() -> None:
    images, keys = photographs(), seeding.sample_keys(0, 0, torch.arange(64))
    same = randaugment(images, keys, ops=1, magnitude=0.0, fill=[0.0] * 3, first_draw=32)
    unchanged = sum(torch.equal(a, b) for a, b in zip(same, images, strict=True))
    assert unchanged >= 40, "only autocontrast and equalize have no magnitude"


class Marked(Augment):
    """Sets one pixel to a random value."""

    def change(self, image: Tensor) -> Tensor:
        marked = image.clone()
        marked[:, 0, 0] = int(torch.randint(0, 256, ()))
        return marked


def test_an_augmentation_of_ones_own_is_keyed_by_the_sample() -> None:
    settings = asdict(make(compose(["augment=none"]).augment))
    own = Marked(**(settings | {"affine": Affine(**settings["affine"])}))
    augment, positions = augmenter(own), torch.arange(8)
    whole = augment(positions, 3, own)
    assert torch.equal(augment(positions[4:], 3, own), whole[4:]), "in any batch"
    assert len(whole[:, 0, 0, 0].unique()) > 4
    assert not torch.equal(augment(positions, 4, own), whole), "in every epoch"
    assert torch.equal(whole[..., 1:, :], photographs()[:8, :, 1:])
    seeding.seed_sample(0, 3, 5)
    from_file = training_transform(own, PIXELS)(photographs()[5])
    assert torch.equal(from_file, whole[5]), "by a worker, too"
