"""Boxes: the two forms, and generalised IoU against hand-computed and torchvision's values."""

import pytest
import torch

from vitexp.detection.box import area, giou, to_cxcywh, to_pixels, to_xyxy


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator)
    return torch.cat([low, low + torch.rand(count, 2, generator=generator) + 0.01], dim=1)


def test_the_two_forms_are_inverses() -> None:
    boxes = random_boxes(20)
    torch.testing.assert_close(to_xyxy(to_cxcywh(boxes)), boxes)
    torch.testing.assert_close(to_cxcywh(torch.tensor([0.0, 0.0, 4.0, 2.0])), torch.tensor([2.0, 1.0, 4.0, 2.0]))


def test_any_number_of_dimensions_before_the_last() -> None:
    flat = to_cxcywh(random_boxes(24))
    many = flat.view(2, 3, 4, 4)
    for change in (to_xyxy, to_cxcywh, lambda boxes: to_pixels(boxes, torch.tensor([100, 200]))):
        assert torch.equal(change(many), change(flat).view(2, 3, 4, 4))


def test_pixels_are_width_across_and_height_down() -> None:
    pixels = to_pixels(torch.tensor([[0.5, 0.5, 1.0, 0.5]]), torch.tensor([100, 200]))
    torch.testing.assert_close(pixels, torch.tensor([[0.0, 25.0, 200.0, 75.0]]))


@pytest.mark.parametrize(("other", "expected"), [([1, 1, 3, 3], -0.0794), ([2, 2, 3, 3], -0.4444), ([0, 0, 2, 2], 1.0)])
def test_giou_of_the_fact_sheet(other: list[float], expected: float) -> None:
    value = giou(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor(other, dtype=torch.float32))
    assert float(value) == pytest.approx(expected, abs=1e-4)


def test_giou_equals_torchvision() -> None:
    from torchvision.ops import generalized_box_iou

    a, b = random_boxes(9), random_boxes(7, seed=1)
    torch.testing.assert_close(giou(a[:, None], b[None]), generalized_box_iou(a, b))


def test_boxes_without_area_have_finite_overlap_and_gradient() -> None:
    a = torch.tensor([[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 1.0, 1.0]], requires_grad=True)
    value = giou(a, torch.tensor([[1.0, 1.0, 1.0, 1.0]]))
    value.sum().backward()
    assert value.isfinite().all()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert area(a)[1] == 0
