"""Images and their boxes move together: flips, resizes, crops; sizes of the authors."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from vitexp.data.box.augment import BoxAugment, Frame, fit_size
from vitexp.errors import ConfigError

FRAME = Frame(short=80, longest=133)


def settings(**changes) -> BoxAugment:
    shipped = {
        "flip_rate": 0.0,
        "scales": [1.0],
        "crop_rate": 0.0,
        "crop_scales": [0.5, 0.625, 0.75],
        "crop_range": [0.48, 0.75],
    }
    return BoxAugment(**(shipped | changes))


def marked(height: int = 60, width: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    """A black image with one white rectangle, and its box."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, 20:40, 30:70] = 255
    return image, torch.tensor([[30.0, 20.0, 70.0, 40.0]])


def white_box(image: torch.Tensor) -> list[float]:
    rows, columns = (image[0] > 127).nonzero().unbind(1)
    return [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 640, (800, 1066)), (640, 480, (1066, 800)), (500, 1500, (444, 1332)), (800, 800, (800, 800))],
)
def test_sizes_of_the_authors(height: int, width: int, expected: tuple[int, int]) -> None:
    assert fit_size(height, width, 800, 1333) == expected


@pytest.mark.parametrize("seed", range(30))
def test_the_box_stays_on_its_object(seed: int) -> None:
    torch.manual_seed(seed)
    augment = settings(flip_rate=0.5, scales=[0.6, 0.8, 1.0], crop_rate=0.5)
    image, boxes, kept = FRAME.training(*marked(), augment)
    assert max(image.shape[1:]) <= 133
    if len(boxes):
        assert kept.tolist() == [0]
        assert boxes[0].tolist() == pytest.approx(white_box(image), abs=1.6)
    else:
        assert int((image > 127).sum()) == 0


def test_a_mirror_image_twice_is_the_image() -> None:
    flip = settings(flip_rate=1.0)
    frame = Frame(short=60, longest=100)
    once, boxes, _ = frame.training(*marked(), flip)
    torch.testing.assert_close(boxes, torch.tensor([[30.0, 20.0, 70.0, 40.0]]))
    left = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    once, mirrored, _ = frame.training(marked()[0], left, flip)
    torch.testing.assert_close(mirrored, torch.tensor([[90.0, 0.0, 100.0, 10.0]]))
    twice, back, _ = frame.training(once, mirrored, flip)
    assert torch.equal(twice, marked()[0])
    torch.testing.assert_close(back, left)


def test_crops_are_of_the_published_range() -> None:
    """At 800 pixels sides of 384 to 600, as far as the image goes."""
    frame, sides = Frame(short=800, longest=1333), set()
    for seed in range(200):
        torch.manual_seed(seed)
        boxes = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(500, 620))
        image, _ = frame._cropped((torch.zeros(1, 500, 620), boxes), (0.48, 0.75))
        sides.add(tuple(image.shape[1:]))
    heights, widths = ({size[axis] for size in sides} for axis in (0, 1))
    assert min(heights) in range(384, 390)
    assert max(heights) in range(494, 501)
    assert min(widths) in range(384, 390)
    assert max(widths) in range(594, 601)


def test_boxes_that_a_crop_leaves_nothing_of_are_dropped() -> None:
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 100.0, 100.0], [98.0, 98.0, 100.0, 100.0]])
    counts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        new, left, kept = FRAME.training(image, boxes, settings(crop_rate=1.0))
        assert 1 in kept.tolist()
        assert ((left[:, 2:] - left[:, :2]) > 0).all()
        assert (left >= 0).all()
        assert (left[:, [0, 2]] <= new.shape[2] + 1e-3).all()
        counts.add(len(kept))
    assert 1 in counts


def test_evaluation_is_pillows_resize() -> None:
    image = Image.effect_noise((100, 60), 50).convert("RGB")
    assert FRAME.evaluation(image).shape == (3, 80, 133)
    same = Frame(short=60, longest=1000).evaluation(image)
    assert torch.equal(same.permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_squares_are_kept_to_the_pixel() -> None:
    image = Image.new("RGB", (20, 60))
    assert Frame(short=32, longest=32).evaluation(image).shape == (3, 33, 11)
    assert Frame(short=32, longest=32, exact=True).evaluation(image).shape == (3, 32, 11)


@pytest.mark.parametrize("bad", [{"flip_rate": 1.5}, {"scales": []}, {"crop_range": [0.5]}, {"crop_scales": [0.0]}])
def test_settings_are_checked(bad) -> None:
    with pytest.raises(ConfigError, match=r"augment\."):
        settings(**bad)
